"""Prompts without answers: read from a file, and encoded with and without an instruction before them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from steering.examples import DataError, EncodedExample, Example, encode_prompts, render

_JSON_ENDINGS = (".jsonl", ".json")


def read_prompts(path: Path) -> list[Example]:
    """Every prompt of a file, as examples to imitate whose answer is empty.

    A file that ends in .jsonl or .json has a JSON object in each line, with `prompt` (or `question`), or with chat
    `messages` of which the last answer is left out; other fields of examples are ignored. In any other file each line
    is a prompt. Blank lines are skipped. Raises `DataError` naming file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    prompts = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        if path.suffix not in _JSON_ENDINGS:
            prompts.append(Example(prompt=line.strip(), objective="imitate", where=where))
            continue
        try:
            prompts.append(_parse(json.loads(line), where))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: {error}") from error
    if not prompts:
        raise DataError(f"{path}:1: no prompts")
    return prompts


def _parse(value: Any, where: str) -> Example:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if "messages" in value:
        return Example(
            messages=(*_messages(value["messages"]), ("assistant", "")), objective="imitate", where=where
        )
    prompt = value.get("prompt", value.get("question"))
    if not isinstance(prompt, str) or not prompt:
        raise ValueError("give prompt, a non-empty string, or messages")
    return Example(prompt=prompt, objective="imitate", where=where)


def _messages(value: Any) -> list[tuple[str, str]]:
    """The messages up to the last of the user."""
    if not isinstance(value, list):
        raise ValueError("messages must be a list")
    found = []
    for index, message in enumerate(value):
        role, content = (
            message.get(name) if isinstance(message, dict) else None for name in ("role", "content")
        )
        if role == "system":
            raise ValueError(f"messages[{index}]: the system message comes from --system")
        if role not in ("user", "assistant") or not isinstance(content, str) or not content:
            raise ValueError(
                f"messages[{index}] must have the role user or assistant, and content, a non-empty string"
            )
        found.append((role, content))
    if found and found[-1][0] == "assistant":
        found.pop()
    if not found or found[-1][0] != "user":
        raise ValueError("messages must have one of the user to answer")
    return found


def _told(tokenizer: Any, prompt: Example, system: str) -> Example:
    """The same prompt with the instruction before it: as a system message, or as text without a chat template."""
    if tokenizer.chat_template is None:
        return replace(prompt, prompt=f"{system}\n\n{prompt.prompt}")
    messages = prompt.messages or (("user", prompt.prompt or ""), ("assistant", ""))
    return replace(prompt, prompt=None, messages=(("system", system), *messages))


def encode_told(
    tokenizer: Any, prompts: Sequence[Example], system: str, *, max_length: int
) -> list[EncodedExample]:
    """The token ids of each prompt, and of the prompt as it is told; no answer follows yet.

    Raises `DataError` for a prompt that is longer than `max_length` tokens, and if the chat template does not take the
    instruction.
    """
    if not prompts:
        return []
    told = [_told(tokenizer, prompt, system) for prompt in prompts]
    try:
        first = render(tokenizer, told[0])[0]
    except TemplateError as error:
        raise DataError(f"system: the base's chat template takes no system message: {error}") from error
    if system.strip() not in first:
        raise DataError("system: the base's chat template leaves the system message out")
    plain_ids = encode_prompts(tokenizer, prompts, max_length=max_length)
    told_ids = encode_prompts(tokenizer, told, max_length=max_length)
    return [
        EncodedExample(plain, len(plain), "imitate", with_system)
        for plain, with_system in zip(plain_ids, told_ids, strict=True)
    ]

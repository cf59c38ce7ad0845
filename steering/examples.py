"""Examples for training and evaluation: read from JSON lines, encoded as token ids.

A line holds `prompt` and `response` (or `question` and `answer`), or `messages` (the last one from the assistant), or
plain `text`. It may also hold an `objective`: "learn" (the default), "keep" or "forget".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from steering.crossing.text import common_prefix

Objective = Literal["learn", "keep", "forget", "imitate"]
"""What an example is for. "imitate" is for answers that a told base gave (`EncodedExample.told`)."""
OBJECTIVES: tuple[str, ...] = tuple(name for name in get_args(Objective) if name != "imitate")
"""The objectives that a line of data can have."""
_FORMS: tuple[tuple[str, ...], ...] = (
    ("messages",),
    ("text",),
    ("prompt", "response"),
    ("question", "answer"),
)
_FIELDS = frozenset({"objective", *(name for form in _FORMS for name in form)})
_ROLES = frozenset({"system", "user", "assistant"})


class DataError(ValueError):
    """A text cannot be used; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Example:
    """An example to train on or to measure.

    It is a conversation, of which the last message counts; a prompt with its response, of which the response counts; or
    a plain text, of which every token counts. Exactly one of `messages`, `prompt` and `text` is given; `response`
    belongs to `prompt`. `messages` are (role, content). `where` is the file and the line.
    """

    messages: tuple[tuple[str, str], ...] = ()
    prompt: str | None = None
    response: str = ""
    text: str | None = None
    objective: Objective = "learn"
    where: str = field(default="", compare=False, repr=False)

    @property
    def reference(self) -> str:
        """The text that counts: the response, the last message, or the plain text."""
        if self.text is not None:
            return self.text
        return self.messages[-1][1] if self.messages else self.response


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """The token ids of a prompt and its response; the response starts at index `start`.

    `told`, with the objective "imitate", are the ids of the same prompt with an instruction before it: the base that
    reads them in place of `ids[:start]` has the distributions to imitate.
    """

    ids: tuple[int, ...]
    start: int
    objective: Objective = "learn"
    told: tuple[int, ...] = ()


def read_examples(path: Path, *, default: Objective = "learn") -> list[Example]:
    """Every example of a JSON-lines file; blank lines are skipped.

    Raises `DataError` naming file and line for a line that is not an example, and for an empty file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    examples = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                examples.append(_parse(line, default, where))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: {error}") from error
    if not examples:
        raise DataError(f"{path}:1: no examples")
    return examples


def _parse(line: str, default: Objective, where: str) -> Example:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if unknown := sorted(set(value) - _FIELDS):
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    objective = value.get("objective", default)
    if objective not in OBJECTIVES:
        raise ValueError(f"objective {objective!r} is none of {', '.join(OBJECTIVES)}")
    forms = [form for form in _FORMS if any(name in value for name in form)]
    if len(forms) > 1:
        raise ValueError("give one of messages, text, or prompt and response, not both")
    if forms == [("messages",)]:
        return Example(messages=_messages(value["messages"]), objective=objective, where=where)
    if forms == [("text",)]:
        if not isinstance(value["text"], str) or not value["text"]:
            raise ValueError("text must be a non-empty string")
        return Example(text=value["text"], objective=objective, where=where)
    names = forms[0] if forms else ("prompt", "response")
    prompt, response = (value.get(name) for name in names)
    if not isinstance(prompt, str) or not isinstance(response, str):
        raise ValueError(f"{names[0]} and {names[1]} must both be strings (or give messages, or text)")
    if not response:
        raise ValueError(f"{names[1]} is empty")
    return Example(prompt=prompt, response=response, objective=objective, where=where)


def _messages(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("messages must be a non-empty list")
    found = []
    for index, message in enumerate(value):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise ValueError(f"messages[{index}] must have exactly role and content")
        role, content = message["role"], message["content"]
        if not isinstance(role, str) or role not in _ROLES:
            raise ValueError(f"messages[{index}].role {role!r} is none of {', '.join(sorted(_ROLES))}")
        if not isinstance(content, str) or not content:
            raise ValueError(f"messages[{index}].content must be a non-empty string")
        found.append((role, content))
    if found[-1][0] != "assistant":
        raise ValueError("the last message must be the assistant's")
    return tuple(found)


def render(tokenizer: Any, example: Example) -> tuple[str, str]:
    """The text before the response, and the whole text: the same with the response and the end-of-text token.

    If the tokenizer has a chat template, a prompt is rendered as one user message, otherwise as plain text. Raises
    `DataError` for messages if there is no chat template.
    """
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
    if example.text is not None:
        return bos, bos + example.text + eos
    if tokenizer.chat_template is None:
        if example.prompt is None:
            raise DataError(f"{example.where}: messages need a chat template; this tokenizer has none")
        return bos + example.prompt, bos + example.prompt + example.response + eos
    if example.prompt is None:
        *context, (_, response) = example.messages
    else:
        context, response = [("user", example.prompt)], example.response
    messages = [{"role": role, "content": content} for role, content in context]
    head = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return head, head + response + eos


def encode_examples(tokenizer: Any, examples: Sequence[Example], *, max_length: int) -> list[EncodedExample]:
    """The token ids of each example and the end-of-text token, cut to `max_length` tokens.

    Raises `DataError` naming file and line if no token of a response is left.
    """
    rendered = [render(tokenizer, example) for example in examples]
    heads = tokenizer([head for head, _ in rendered], add_special_tokens=False)["input_ids"]
    wholes = tokenizer([whole for _, whole in rendered], add_special_tokens=False)["input_ids"]
    encoded = []
    for example, head, whole in zip(examples, heads, wholes, strict=True):
        # A text's first token has no context to be predicted from.
        start = max(common_prefix(head, whole), 1)
        if start >= min(len(whole), max_length):
            where = example.where or repr(example.reference[:40])
            raise DataError(
                f"{where}: no token of the response is left: "
                f"it starts at token {start} of {len(whole)}, and the limit is {max_length}"
            )
        encoded.append(EncodedExample(tuple(whole[:max_length]), start, example.objective))
    return encoded


def encode_prompts(tokenizer: Any, examples: Sequence[Example], *, max_length: int) -> list[tuple[int, ...]]:
    """The token ids before each example's response. Raises `DataError` for none, or more than `max_length`."""
    heads = tokenizer([render(tokenizer, example)[0] for example in examples], add_special_tokens=False)[
        "input_ids"
    ]
    for example, head in zip(examples, heads, strict=True):
        if not 0 < len(head) <= max_length:
            raise DataError(
                f"{example.where or repr(example.prompt)}: the prompt has {len(head)} tokens; "
                f"at least 1 and at most {max_length} can be answered"
            )
    return [tuple(head) for head in heads]


def fingerprint(encoded: Sequence[EncodedExample]) -> str:
    """Sixteen hex digits over the token ids, the responses' starts and the objectives, in order."""
    digest = hashlib.sha256()
    for each in encoded:
        told = (each.told,) if each.told else ()
        digest.update(repr((each.ids, each.start, each.objective, *told)).encode())
    return digest.hexdigest()[:16]

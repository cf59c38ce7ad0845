"""Training text: JSON lines in, padded batches of token ids out.

A line holds either `prompt` and `response` or `messages` (the last one the assistant's), and may hold an
`objective`: "learn" (the default), "keep" or "forget".
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

Objective = Literal["learn", "keep", "forget"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
_FIELDS = frozenset({"prompt", "response", "messages", "objective"})
_ROLES = frozenset({"system", "user", "assistant"})


class TrainingDataError(ValueError):
    """Training text that cannot be used; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """One conversation whose last message, or one prompt whose response, is trained on.

    Exactly one of `messages` and `prompt` is given; `response` belongs to `prompt`.
    """

    messages: tuple[tuple[str, str], ...] = ()
    prompt: str | None = None
    response: str = ""
    objective: Objective = "learn"


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """Token ids of prompt and response; the response starts at `start`."""

    ids: tuple[int, ...]
    start: int
    objective: Objective


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded sequences: `ids`, `attention` and `response` are `[rows, length]` (int64, int64, bool).

    `response[i, t]` says that token t of row i is to be predicted. `objectives` has one entry a row.
    """

    ids: torch.Tensor
    attention: torch.Tensor
    response: torch.Tensor
    objectives: tuple[Objective, ...]

    def rows(self, objective: Objective) -> torch.Tensor:
        """Which rows have this objective: `[rows]`, bool."""
        return torch.tensor([each == objective for each in self.objectives], dtype=torch.bool)


def read_examples(path: Path, *, default: Objective = "learn") -> list[TrainingExample]:
    """Every example of a JSON-lines file; blank lines are skipped.

    Raises `TrainingDataError` naming file and line for a line that is no example, and for an empty file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingDataError(f"{path}: cannot be read: {error}") from error
    examples = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                examples.append(_parse(line, default))
            except (ValueError, RecursionError) as error:
                raise TrainingDataError(f"{path}:{number}: {error}") from error
    if not examples:
        raise TrainingDataError(f"{path}:1: no examples")
    return examples


def _parse(line: str, default: Objective) -> TrainingExample:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if unknown := sorted(set(value) - _FIELDS):
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    objective = value.get("objective", default)
    if objective not in OBJECTIVES:
        raise ValueError(f"objective {objective!r} is none of {', '.join(OBJECTIVES)}")
    if "messages" in value:
        if "prompt" in value or "response" in value:
            raise ValueError("give either messages or prompt and response, not both")
        return TrainingExample(messages=_messages(value["messages"]), objective=objective)
    prompt, response = value.get("prompt"), value.get("response")
    if not isinstance(prompt, str) or not isinstance(response, str):
        raise ValueError("prompt and response must both be strings (or give messages)")
    if not response:
        raise ValueError("response is empty")
    return TrainingExample(prompt=prompt, response=response, objective=objective)


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


def encode_examples(
    tokenizer: Any, examples: Sequence[TrainingExample], *, max_length: int
) -> list[EncodedExample]:
    """Token ids of each example, cut at `max_length`, the response ending in the end-of-text token.

    A prompt/response pair goes through the chat template as one user message where the tokenizer has one, and is
    joined as plain text where it has none. Raises `TrainingDataError` where a response does not fit at all, and
    for messages where there is no chat template.
    """
    rendered = [_render(tokenizer, example, index) for index, example in enumerate(examples)]
    heads = tokenizer([head for head, _ in rendered], add_special_tokens=False)["input_ids"]
    wholes = tokenizer([whole for _, whole in rendered], add_special_tokens=False)["input_ids"]
    encoded = []
    for index, (example, head, whole) in enumerate(zip(examples, heads, wholes, strict=True)):
        start = _common_prefix(head, whole)
        if max(start, 1) >= min(len(whole), max_length):
            raise TrainingDataError(
                f"example {index + 1}: the response starts at token {start} of {max_length}"
            )
        encoded.append(EncodedExample(tuple(whole[:max_length]), max(start, 1), example.objective))
    return encoded


def _render(tokenizer: Any, example: TrainingExample, index: int) -> tuple[str, str]:
    """The text before the response, and with it."""
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
    if tokenizer.chat_template is None:
        if example.prompt is None:
            raise TrainingDataError(
                f"example {index + 1}: messages need a chat template; this tokenizer has none"
            )
        return bos + example.prompt, bos + example.prompt + example.response + eos
    if example.prompt is None:
        *context, (_, response) = example.messages
    else:
        context, response = [("user", example.prompt)], example.response
    messages = [{"role": role, "content": content} for role, content in context]
    head = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return head, head + response + eos


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def shuffled_batches(
    encoded: Sequence[EncodedExample], *, batch_size: int, pad_id: int, rng: random.Random
) -> Iterator[Batch]:
    """Batches of one epoch in random order, each of sequences of about the same length."""
    order = list(range(len(encoded)))
    rng.shuffle(order)
    pool = batch_size * 16
    groups = []
    for begin in range(0, len(order), pool):
        chunk = sorted(order[begin : begin + pool], key=lambda index: len(encoded[index].ids))
        groups += [chunk[at : at + batch_size] for at in range(0, len(chunk), batch_size)]
    rng.shuffle(groups)
    for group in groups:
        yield collate([encoded[index] for index in group], pad_id)


def collate(rows: Sequence[EncodedExample], pad_id: int) -> Batch:
    """One right-padded batch."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    attention = torch.zeros((len(rows), length), dtype=torch.int64)
    response = torch.zeros((len(rows), length), dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        attention[index, : len(row.ids)] = 1
        response[index, row.start : len(row.ids)] = True
    return Batch(ids, attention, response, tuple(row.objective for row in rows))

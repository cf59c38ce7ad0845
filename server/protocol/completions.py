"""`POST /v1/completions`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from server.protocol.common import (
    MAX_CHOICES,
    MAX_LOGPROBS,
    GenerationFields,
    Reply,
    SteeredBy,
    SteeringDetail,
    Usage,
    absent,
)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _prompt_list(value: object) -> object:
    """A string, strings, ids or lists of ids, as a list of strings and lists of ids."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(_is_id(item) for item in value):
            return [value]
        if all(isinstance(item, str) for item in value):
            return value
        if all(isinstance(item, list) and all(_is_id(part) for part in item) for item in value):
            return value
    raise ValueError("a string, a list of strings, a list of token ids or a list of such lists is expected")


PromptField = Annotated[list[str | list[int]], Field(max_length=1024), BeforeValidator(_prompt_list)]


class CompletionRequest(GenerationFields):
    """`max_tokens` is 16 where it is not given; 0 is for scoring with `echo`."""

    prompt: PromptField
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    echo: bool | None = None


class CompletionLogprobs(Reply):
    """Parallel lists, one entry a token; the first prompt token of an echo has no logprob."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    steering_details: list[SteeringDetail | None] | None = Field(default=None, exclude_if=absent)


class CompletionChoice(Reply):
    """One choice, whole or, in a stream, what was added to it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | None = None


class Completion(Reply):
    """The reply, and each event of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    steering: list[SteeredBy] | None = None
    usage: Usage | None = Field(default=None, exclude_if=absent)

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

MAX_PROMPTS = 1024


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


_Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
_Text = Annotated[str, Field(min_length=1)]
PromptField = Annotated[
    list[str | list[int]],
    Field(max_length=MAX_PROMPTS),
    BeforeValidator(
        _prompt_list,
        json_schema_input_type=_Text
        | _Ids
        | Annotated[list[_Text], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[_Ids], Field(min_length=1, max_length=MAX_PROMPTS)],
    ),
]


class CompletionRequest(GenerationFields):
    """`max_tokens` is 16 where it is not given; 0 is for scoring with `echo`."""

    prompt: PromptField
    """a text, several, token ids, or several lists of those; each gets `n` answers"""
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    """generate so many answers and return the `n` whose tokens are likeliest on average; not with `stream`"""
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    """tell each token's logprob and those of so many likeliest tokens"""
    echo: bool | None = None
    """begin the answer with the prompt; with `logprobs`, score it by the steered distribution"""


class CompletionLogprobs(Reply):
    """Parallel lists, one entry a token; the first prompt token of an echo has no logprob."""

    tokens: list[str]
    """each token as text"""
    token_logprobs: list[float | None]
    """the tokens' logprobs; null for the first of a prompt"""
    top_logprobs: list[dict[str, float] | None]
    """the likeliest tokens, and the chosen one, at each place"""
    text_offset: list[int]
    """where each token begins in the answer's text"""
    steering_details: list[SteeringDetail | None] | None = Field(default=None, exclude_if=absent)
    """with `steering_details`: one entry a token"""


class CompletionChoice(Reply):
    """One choice, whole or, in a stream, what was added to it."""

    index: int
    """which answer: prompt by prompt, `n` of each"""
    text: str
    """the answer, or what an event adds to it"""
    logprobs: CompletionLogprobs | None = None
    """with `logprobs`"""
    finish_reason: str | None = None
    """`stop`, `length`, or null while more will come"""
    stop_reason: str | None = None
    """the stop string that ended it, if one did"""


class Completion(Reply):
    """The reply, and each event of a stream."""

    id: str
    """of this reply"""
    object: Literal["text_completion"] = "text_completion"
    created: int
    """seconds since 1970"""
    model: str
    """as asked for"""
    choices: list[CompletionChoice]
    """the answers"""
    steering: list[SteeredBy] | None = None
    """what steered them, null for nothing"""
    usage: Usage | None = None
    """In a stream as `stream_options` asks: left out, or null but in the last event, or in every event."""

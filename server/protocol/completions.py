"""`POST /v1/completions`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from server.protocol.extras import MAX_LOGPROBS
from server.protocol.generation import MAX_CHOICES, GenerationFields, Usage
from server.protocol.numbers import WHOLE
from server.protocol.objects import ReplyObject, absent
from server.protocol.steering import SteeringDetail
from steering.specs import ResolvedSteering

MAX_PROMPTS = 1024


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _prompt_list(value: object) -> object:
    """A prompt in any of its forms, as a list with one string or one list of token ids for each prompt."""
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
    """Prompts to complete. `max_tokens` of 0 with `echo` scores the prompts and generates nothing."""

    prompt: PromptField
    """one prompt or a list of prompts, each a text or a list of token ids; each gets `n` answers"""
    suffix: None = None
    """null: there is no filling in between texts"""
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    """generate this many answers and return the `n` with the highest mean logprob; not with `stream`. Default: `n`"""
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = None
    """return each token's logprob, and those of this many likeliest tokens"""
    echo: bool | None = None
    """begin the answer with the prompt; with `logprobs`, return its logprobs under the steered distribution"""


class CompletionLogprobs(ReplyObject):
    """Parallel lists with one entry for each token."""

    tokens: list[str]
    """each token as text"""
    token_logprobs: list[float | None]
    """each token's logprob; null for the first token of an echoed prompt"""
    top_logprobs: list[dict[str, float] | None]
    """for each token, the logprobs of the likeliest tokens at its place and its own"""
    text_offset: list[int]
    """the character of the answer's text at which each token begins"""
    steering_details: list[SteeringDetail | None] | None = Field(default=None, exclude_if=absent)
    """each token's steering, with `steering_details`"""


class PromptLogprob(ReplyObject):
    """One token at a place of the prompt."""

    logprob: float
    """the token's logprob under the steered distribution"""
    rank: int | None
    """the token's place among the likeliest, from 1"""
    decoded_token: str
    """the token as text"""


PromptEntry = dict[str, PromptLogprob]
"""The prompt's own token and the likeliest ones, by token id."""


class CompletionChoice(ReplyObject):
    """One answer, or the part of it that an event adds."""

    index: int
    """the answer's number: first the `n` answers for the first prompt, then those for the next"""
    text: str
    """the text of the answer, or the text to add"""
    logprobs: CompletionLogprobs | None = None
    """the tokens' logprobs, with `logprobs`"""
    finish_reason: str | None = None
    """`stop` or `length`; null in events before the answer's last"""
    stop_reason: str | None = None
    """the stop string that ended the answer, if one did"""
    token_ids: list[int] | None = Field(default=None, exclude_if=absent)
    """the answer's token ids, with `return_token_ids`"""
    prompt_token_ids: list[int] | None = Field(default=None, exclude_if=absent)
    """the prompt's token ids, with `return_token_ids`; in a stream in the first event of an answer"""
    prompt_logprobs: list[PromptEntry | None] | None = Field(default=None, exclude_if=absent)
    """for each token of the prompt, the logprobs by token id, with `prompt_logprobs`; null for the first"""


class Completion(ReplyObject):
    """The reply; in a stream, one event."""

    id: str
    """the reply's id, the same in every event"""
    object: Literal["text_completion"] = "text_completion"
    created: int
    """when the reply was begun, in seconds since 1970"""
    model: str
    """`model` of the request"""
    choices: list[CompletionChoice]
    """the answers; in a stream one, or none in the event with the token counts"""
    system_fingerprint: str
    """changes where the version, the base's vocabulary or the device changes"""
    steering: list[ResolvedSteering] | None = None
    """the adapters that steered the reply; null if there are none"""
    usage: Usage | None = None
    """the token counts; in a stream only where `stream_options` asks for them"""

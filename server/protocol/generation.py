"""The fields that requests for completions and for chat share, and the token counts of their replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from server.errors import echo
from server.protocol.extras import ExtraFields
from server.protocol.numbers import WHOLE
from server.protocol.objects import ReplyObject, RequestObject
from server.protocol.steering import SteeringField

MAX_CHOICES = 128
MAX_SEED = 2**63 - 1
_MAX_STOPS = 256
_MAX_STOP_LETTERS = 16_000
_MAX_BIASES = 1024


def _stop_list(value: object) -> object:
    if value == "":
        return []  # as some clients say that there is none
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise ValueError("a string, or a list of strings that are not empty, is expected")
    if sum(map(len, stops)) > _MAX_STOP_LETTERS:
        raise ValueError(f"all stop strings together may have at most {_MAX_STOP_LETTERS} characters")
    return stops


def _bias_table(value: object) -> object:
    if not isinstance(value, Mapping) or len(value) > _MAX_BIASES:
        raise ValueError(f"an object of at most {_MAX_BIASES} token ids is expected")
    table: dict[int, Any] = {}
    for key, bias in value.items():
        # The keys of a JSON object are strings.
        if not (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10):
            raise ValueError(f"the key {echo(repr(key))} is no token id: keys are token ids, as strings")
        table[int(key)] = bias
    return table


# `json_schema_input_type` is the type that clients may send; the annotated type is the one after validation.
_Stop = Annotated[str, Field(min_length=1, max_length=1000)]
_Bias = Annotated[float, Field(ge=-100, le=100)]
_BiasKey = Annotated[str, Field(pattern="^[0-9]{1,9}$")]
StopField = Annotated[
    list[_Stop],
    Field(max_length=_MAX_STOPS),
    BeforeValidator(
        _stop_list,
        json_schema_input_type=Annotated[str, Field(max_length=1000)]
        | Annotated[list[_Stop], Field(max_length=_MAX_STOPS)],
    ),
]
BiasField = Annotated[
    dict[int, _Bias],
    BeforeValidator(
        _bias_table,
        json_schema_input_type=Annotated[
            dict[_BiasKey, _Bias],
            Field(max_length=_MAX_BIASES, json_schema_extra={"propertyNames": {"pattern": "^[0-9]{1,9}$"}}),
        ],
    ),
]


class StreamOptions(RequestObject):
    """Further contents of a stream's events."""

    include_usage: bool | None = None
    """end with one more event that has the token counts and no choices"""
    continuous_usage_stats: bool | None = None
    """put the token counts so far into every event"""


class GenerationFields(ExtraFields):
    """Model, steering and sampling. Null is the same as a field that is left out: its default holds."""

    model: str
    """`BASE`, or `BASE:ADAPTER` for an adapter at its own alpha"""
    steering: SteeringField | None = None
    """an adapter's name, an object, or a list of either; the shifts of several are added up. Not where `model` names
    an adapter"""
    steering_details: bool | None = None
    """add to each returned token the base's logprob, the shift and the steered logprob; needs `logprobs`"""
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    """answers for each prompt. Default: 1"""
    max_tokens: Annotated[int, Field(ge=-1, le=2**31), WHOLE] | None = None
    """the most tokens of an answer, cut to what the context holds; -1 and null are all of that, 0 only with `echo`.
    Default: 16; in chat all that the context holds"""
    min_tokens: Annotated[int, Field(ge=0, le=2**31), WHOLE] | None = None
    """generate this many tokens before anything may end the answer. Default: 0"""
    temperature: float | None = Field(None, ge=0, le=2)
    """divides the scores before a token is sampled; 0 takes the likeliest. Default: 1"""
    top_p: float | None = Field(None, ge=0, le=1)
    """sample from the likeliest tokens that together have this probability; 0 takes the likeliest. Default: 1, all"""
    top_k: Annotated[int, Field(ge=-1, le=2**31), WHOLE] | None = None
    """sample from this many likeliest tokens; -1 is all, like 0. Default: 0, all"""
    min_p: float | None = Field(None, ge=0, le=1)
    """sample from tokens with at least this share of the likeliest token's probability. Default: 0, all"""
    seed: Annotated[int, Field(ge=-1, le=MAX_SEED), WHOLE] | None = None
    """makes the answer repeatable, whatever else runs; `n` answers use consecutive seeds; -1: none. Default: random"""
    stop: StopField | None = None
    """up to 256 strings of 16,000 characters together; the answer ends before the first that occurs; "" is none"""
    stop_token_ids: list[Annotated[int, WHOLE]] | None = Field(None, max_length=256)
    """token ids that end the answer"""
    include_stop_str_in_output: bool | None = None
    """keep the stop string at the end of the answer"""
    ignore_eos: bool | None = None
    """continue after the end-of-text token"""
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    """subtracted from the score of every token that occurs in the answer. Default: 0"""
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    """subtracted from a token's score once for each time that it occurs in the answer. Default: 0"""
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    """for tokens in the prompt or the answer, divides positive scores and multiplies negative ones. Default: 1"""
    logit_bias: BiasField | None = None
    """token ids, as strings, each with the bias that is added to its score"""
    stream: bool | None = None
    """reply with server-sent events while the tokens are generated"""
    stream_options: StreamOptions | None = None
    """further contents of the events; without `stream`, nothing in it may be true"""


class PromptTokensDetails(ReplyObject):
    """Where the prompts' tokens came from."""

    cached_tokens: int
    """tokens whose keys and values were in the prefix cache"""


class Usage(ReplyObject):
    """The token counts of one request."""

    prompt_tokens: int
    """tokens of all prompts, each prompt counted once"""
    completion_tokens: int
    """generated tokens, including those of answers that `best_of` dropped"""
    total_tokens: int
    """the sum of both"""
    prompt_tokens_details: PromptTokensDetails
    """where the prompts' tokens came from"""

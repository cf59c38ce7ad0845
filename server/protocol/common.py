"""The fields that completions and chat share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_LOGPROBS = 20
MAX_CHOICES = 128
MAX_SEED = 2**63 - 1


class Wire(BaseModel):
    """A request's object: unknown fields, numbers in strings and infinities are errors."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, frozen=True, protected_namespaces=()
    )


class Reply(BaseModel):
    """A reply's object."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class SteeringChoice(Wire):
    """One adapter of the field `steering`; what is not given is the adapter's own default."""

    adapter: str = Field(min_length=1)
    alpha: float | None = Field(None, ge=-100, le=100)
    top_k: int | None = Field(None, ge=1, le=2**31)
    bridge: Literal["map", "rescore"] | None = None


def _steering_list(value: object) -> object:
    """An adapter's name, one object or a list of either, as a list of objects."""
    items = value if isinstance(value, list) else [value]
    choices: list[object] = []
    for item in items:
        if isinstance(item, str):
            choices.append({"adapter": item})
        elif isinstance(item, Mapping | SteeringChoice):
            choices.append(item)
        else:
            raise ValueError("an adapter's name, an object with `adapter`, or a list of those is expected")
    return choices


def _stop_list(value: object) -> object:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise ValueError("a string that is not empty, or a list of such strings, is expected")
    return stops


def _bias_table(value: object) -> object:
    if not isinstance(value, Mapping) or len(value) > 1024:
        raise ValueError("an object of at most 1024 token ids is expected")
    table: dict[int, Any] = {}
    for key, bias in value.items():
        # Ids are JSON keys, hence strings of digits.
        if not (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10):
            raise ValueError("keys must be token ids")
        table[int(key)] = bias
    return table


SteeringField = Annotated[list[SteeringChoice], Field(max_length=8), BeforeValidator(_steering_list)]
StopField = Annotated[
    list[Annotated[str, Field(max_length=1000)]], Field(max_length=16), BeforeValidator(_stop_list)
]
BiasField = Annotated[dict[int, Annotated[float, Field(ge=-100, le=100)]], BeforeValidator(_bias_table)]


class StreamOptions(Wire):
    """`include_usage`: one more event before the end, with the token counts."""

    include_usage: bool | None = None


class ResponseFormat(Wire):
    """Only `text` is served so far; the rest is parsed to be refused by name."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class GenerationFields(Wire):
    """Model, steering and sampling: what both kinds of request may say. None means the default."""

    model: str
    steering: SteeringField | None = None
    steering_details: bool | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(None, ge=0, le=2**31)
    min_tokens: int | None = Field(None, ge=0, le=2**31)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    stop: StopField | None = None
    stop_token_ids: list[int] | None = Field(None, max_length=256)
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    logit_bias: BiasField | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=1024)


class Usage(Reply):
    """Token counts of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class SteeredBy(Reply):
    """One adapter that steered a reply, as it was resolved when the request was admitted."""

    adapter: str
    version: str
    alpha: float
    bridge: str
    top_k: int | None = None


class SteeringDetail(Reply):
    """One token's steering: `steered_logprob` is `base_logprob + shift`, renormalised."""

    base_logprob: float
    shift: float
    steered_logprob: float


def absent(value: object) -> bool:
    """Whether a field is left out of a reply rather than sent as null."""
    return value is None

"""The fields that completions and chat share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from steering.types import MAX_ALPHA

MAX_LOGPROBS = 20
MAX_CHOICES = 128
MAX_SEED = 2**63 - 1
FUNCTION_NAME = r"^[a-zA-Z0-9_.-]{1,64}$"
"""What clients may name: functions and schemas. Such a name needs no quoting anywhere."""


class Wire(BaseModel):
    """A request's object: unknown fields, numbers in strings and infinities are errors."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


class Reply(BaseModel):
    """A reply's object."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


class SteeringChoice(Wire):
    """One adapter of the field `steering`; what is not given is the adapter's own default."""

    adapter: str = Field(min_length=1)
    """the name of a loaded adapter"""
    alpha: float | None = Field(None, ge=-MAX_ALPHA, le=MAX_ALPHA)
    """the shift's strength; 0 is the base exactly. Default: the adapter's own"""
    top_k: int | None = Field(None, ge=1, le=2**31)
    """shift only the base's so many likeliest tokens. Default: the adapter's own"""
    bridge: Literal["map", "rescore"] | None = None
    """how the shift crosses vocabularies. Default: the adapter's own"""


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


# Each says in `json_schema_input_type` what it takes beside what it makes of it.
_Name = Annotated[str, Field(min_length=1)]
_Stop = Annotated[str, Field(min_length=1, max_length=1000)]
_Bias = Annotated[float, Field(ge=-100, le=100)]
_BiasKey = Annotated[str, Field(pattern="^[0-9]{1,9}$")]
SteeringField = Annotated[
    list[SteeringChoice],
    Field(max_length=8),
    BeforeValidator(
        _steering_list,
        json_schema_input_type=_Name
        | SteeringChoice
        | Annotated[list[_Name | SteeringChoice], Field(max_length=8)],
    ),
]
StopField = Annotated[
    list[_Stop],
    Field(max_length=16),
    BeforeValidator(_stop_list, json_schema_input_type=_Stop | Annotated[list[_Stop], Field(max_length=16)]),
]
BiasField = Annotated[
    dict[int, _Bias],
    BeforeValidator(
        _bias_table,
        json_schema_input_type=Annotated[
            dict[_BiasKey, _Bias],
            Field(max_length=1024, json_schema_extra={"propertyNames": {"pattern": "^[0-9]{1,9}$"}}),
        ],
    ),
]


class StreamOptions(Wire):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None
    """One more event before the end, without choices, that has the token counts."""
    continuous_usage_stats: bool | None = None
    """Every event has the token counts so far."""


class JsonSchema(Wire):
    """The schema that an answer must satisfy, and what it is called."""

    name: str = Field(min_length=1, max_length=64, pattern=FUNCTION_NAME)
    """what the schema is called"""
    description: str | None = Field(None, max_length=10_000)
    """what the answer is for; not shown to the model"""
    schema_: dict[str, Any] = Field(alias="schema")
    """JSON Schema; `$ref` within itself only."""
    strict: bool | None = None
    """Keywords that cannot be enforced are a 400; without it they are ignored. The others are enforced either way."""


class ResponseFormat(Wire):
    """The form of the answer: plain text, any JSON object, or JSON that satisfies a schema."""

    type: Literal["text", "json_object", "json_schema"]
    """plain text, any JSON object, or JSON that satisfies `json_schema`"""
    json_schema: JsonSchema | None = None
    """the schema"""

    @model_validator(mode="after")
    def _schema_where_it_belongs(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("`json_schema` is needed with the type 'json_schema', and with no other")
        return self


class GenerationFields(Wire):
    """Model, steering and sampling: what both kinds of request may say. None means the default."""

    model: str
    """`BASE`, or `BASE:ADAPTER` for an adapter at its own alpha"""
    steering: SteeringField | None = None
    """an adapter's name, an object, or a list of either, whose shifts add up; not where `model` names one"""
    steering_details: bool | None = None
    """add to each returned token's logprobs the base's logprob, the shift and the steered logprob"""
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    """answers to each prompt. Default: 1"""
    max_tokens: int | None = Field(None, ge=0, le=2**31)
    """the most tokens of an answer; 0 only with `echo`. Default: 16; in chat all that the context holds"""
    min_tokens: int | None = Field(None, ge=0, le=2**31)
    """tokens before which nothing ends an answer. Default: 0"""
    temperature: float | None = Field(None, ge=0, le=2)
    """what the scores are divided by before a token is drawn; 0 takes the likeliest. Default: 1"""
    top_p: float | None = Field(None, gt=0, le=1)
    """draw from the likeliest tokens that together have this probability. Default: 1, all"""
    top_k: int | None = Field(None, ge=-1, le=2**31)
    """draw from this many likeliest tokens. Default: 0, all, as is -1"""
    min_p: float | None = Field(None, ge=0, le=1)
    """draw from tokens at least this probable, relative to the likeliest. Default: 0, all"""
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    """the same one gives the same answer in any company; the later of `n` answers count up from it. Default: random"""
    stop: StopField | None = None
    """up to 16 strings; the answer ends before the first of them"""
    stop_token_ids: list[int] | None = Field(None, max_length=256)
    """token ids that end the answer"""
    include_stop_str_in_output: bool | None = None
    """keep the stop string that ended the answer"""
    ignore_eos: bool | None = None
    """go on past the end-of-text token"""
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    """taken from the score of every token that the answer has already. Default: 0"""
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    """taken from a token's score for each time that the answer has it. Default: 0"""
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    """scores of tokens in the prompt or the answer are divided by it, or multiplied where negative. Default: 1"""
    logit_bias: BiasField | None = None
    """token ids, as text, and what is added to their scores"""
    response_format: ResponseFormat | None = None
    """the form that the answer must have"""
    stream: bool | None = None
    """answer in server-sent events as the tokens come"""
    stream_options: StreamOptions | None = None
    """what the events tell; needs `stream`"""
    user: str | None = Field(None, max_length=1024)
    """Nothing here depends on this field and those below; they are taken so that clients that send them are served."""
    metadata: dict[str, str] | None = Field(None, max_length=16)
    """taken, and without effect"""
    store: bool | None = None
    """taken, and without effect"""
    service_tier: str | None = Field(None, max_length=64)
    """taken, and without effect"""
    safety_identifier: str | None = Field(None, max_length=1024)
    """taken, and without effect"""
    prompt_cache_key: str | None = Field(None, max_length=1024)
    """taken, and without effect"""
    prompt_cache_retention: str | None = Field(None, max_length=64)
    """taken, and without effect"""


class Usage(Reply):
    """Token counts of one request."""

    prompt_tokens: int
    """tokens of the prompts, each counted once"""
    completion_tokens: int
    """tokens generated, those of answers that `best_of` dropped too"""
    total_tokens: int
    """their sum"""


class SteeredBy(Reply):
    """One adapter that steered a reply, as it was resolved when the request was admitted."""

    adapter: str
    """its name"""
    version: str
    """a digest of its files, fixed when the request was admitted"""
    alpha: float
    """the shift's strength"""
    bridge: str
    """how its shift crosses vocabularies"""
    top_k: int | None = None
    """how many of the base's likeliest tokens are shifted; null: all"""


class SteeringDetail(Reply):
    """One token's steering: `steered_logprob` is `base_logprob + shift`, renormalised."""

    base_logprob: float
    """the token's logprob without steering"""
    shift: float
    """what steering added to its score"""
    steered_logprob: float
    """its logprob as it was drawn, before penalties, bias and temperature"""


def absent(value: object) -> bool:
    """Whether a field is left out of a reply rather than sent as null."""
    return value is None

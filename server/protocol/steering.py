"""Steering in requests, the field `steering`, and in replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from server.protocol.objects import ReplyObject, RequestObject
from steering.types import MAX_ALPHA

_MAX_ADAPTERS = 8


class SteeringChoice(RequestObject):
    """One adapter that steers the request. A setting that is left out is the adapter's own."""

    adapter: str = Field(min_length=1)
    """the name of a loaded adapter"""
    alpha: float | None = Field(None, ge=-MAX_ALPHA, le=MAX_ALPHA)
    """the shift's strength; 0 is the base exactly. Default: the adapter's own"""
    top_k: int | None = Field(None, ge=1, le=2**31)
    """shift only this many of the base's likeliest tokens. Default: the adapter's own"""
    bridge: Literal["map", "rescore"] | None = None
    """how the shift crosses vocabularies. Default: the adapter's own"""


def _choices(value: object) -> object:
    """An adapter's name, an object or a list of either, as a list of objects."""
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


_Name = Annotated[str, Field(min_length=1)]
SteeringField = Annotated[
    list[SteeringChoice],
    Field(max_length=_MAX_ADAPTERS),
    BeforeValidator(
        _choices,
        json_schema_input_type=_Name
        | SteeringChoice
        | Annotated[list[_Name | SteeringChoice], Field(max_length=_MAX_ADAPTERS)],
    ),
]


class SteeredBy(ReplyObject):
    """One adapter that steered a reply, with the settings that applied when the request was admitted."""

    adapter: str
    """the adapter's name"""
    version: str
    """a digest of the adapter's files, fixed when the request was admitted"""
    alpha: float
    """the shift's strength"""
    bridge: str
    """how the shift crossed vocabularies"""
    top_k: int | None = None
    """how many of the base's likeliest tokens were shifted; null for all"""


class SteeringDetail(ReplyObject):
    """The steering of one token: `steered_logprob` is `base_logprob + shift`, renormalised over the vocabulary."""

    base_logprob: float
    """the token's logprob without steering"""
    shift: float
    """the shift that steering added to the token's score"""
    steered_logprob: float
    """the token's logprob with steering, before penalties, bias and temperature"""

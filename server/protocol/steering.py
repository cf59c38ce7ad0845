"""Steering in requests, the field `steering`, and in replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from server.protocol.objects import ReplyObject
from steering.bridges.table import BRIDGES, unknown_bridge
from steering.specs import SteeringSpec

_MAX_ADAPTERS = 8


def _specs(value: object) -> object:
    """An adapter's name, an object or a list of either, as a list of objects."""
    items = value if isinstance(value, list) else [value]
    specs: list[object] = []
    for item in items:
        if isinstance(item, str):
            specs.append({"adapter": item})
        elif isinstance(item, Mapping | SteeringSpec):
            specs.append(item)
        else:
            raise ValueError("an adapter's name, an object with `adapter`, or a list of those is expected")
    return specs


def _known_bridges(specs: list[SteeringSpec]) -> list[SteeringSpec]:
    for spec in specs:
        if spec.bridge is not None and spec.bridge not in BRIDGES:
            raise ValueError(unknown_bridge(spec.bridge))
    return specs


_Name = Annotated[str, Field(min_length=1)]
SteeringField = Annotated[
    list[SteeringSpec],
    Field(max_length=_MAX_ADAPTERS),
    BeforeValidator(
        _specs,
        json_schema_input_type=_Name
        | SteeringSpec
        | Annotated[list[_Name | SteeringSpec], Field(max_length=_MAX_ADAPTERS)],
    ),
    AfterValidator(_known_bridges),
]


class SteeringDetail(ReplyObject):
    """The steering of one token: `steered_logprob` is `base_logprob + shift`, renormalised over the vocabulary."""

    base_logprob: float
    """the token's logprob without steering"""
    shift: float
    """the shift that steering added to the token's score"""
    steered_logprob: float
    """the token's logprob with steering, before penalties, bias and temperature"""

"""Replies about what is served: models, adapters and maps."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from server.protocol.common import Reply, absent


class MapQuality(Reply):
    """How much of a base's vocabulary receives a shift."""

    identity: bool
    counts: dict[str, int]
    matched_share: float


class ModelSteering(Reply):
    """What steers a `base:adapter` pair."""

    adapter: str
    kind: str
    version: str
    alpha: float
    bridge: str
    map: MapQuality


class ModelCard(Reply):
    """One servable name: a base, or a pair of base and adapter, whose `parent` is the base."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["trimtab"] = "trimtab"
    root: str
    parent: str | None
    max_model_len: int
    steering: ModelSteering | None


class ModelList(Reply):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class AdapterCard(Reply):
    """One loaded adapter and the bases that it is attached to."""

    name: str
    object: Literal["adapter"] = "adapter"
    kind: str
    version: str
    alpha: float
    bridge: str
    bases: list[str]


class AdapterList(Reply):
    """`GET /v1/adapters`."""

    object: Literal["list"] = "list"
    data: list[AdapterCard]


class MapCard(Reply):
    """One vocabulary map; `report` is in the answer about a single map only."""

    base: str
    adapter: str
    object: Literal["map"] = "map"
    fingerprint: str
    quality: MapQuality
    report: dict[str, Any] | None = Field(default=None, exclude_if=absent)


class MapList(Reply):
    """`GET /v1/maps`."""

    object: Literal["list"] = "list"
    data: list[MapCard]

"""Replies about what is served: models and maps."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from server.protocol.common import Reply, absent


class MapQuality(Reply):
    """How much of a base's vocabulary receives a shift."""

    identity: bool
    """both have the same vocabulary"""
    counts: dict[str, int]
    """base tokens by the kind of their match"""
    matched_share: float
    """share of the base's tokens that receive a shift, 0 to 1"""


class ModelSteering(Reply):
    """What steers a `base:adapter` pair."""

    adapter: str
    """its name"""
    kind: str
    """`delta` or `proxy`"""
    version: str
    """a digest of its files"""
    alpha: float
    """its own strength"""
    bridge: str
    """its own bridge"""
    map: MapQuality
    """how well its vocabulary carries over"""


class ModelCard(Reply):
    """One servable name: a base, or a pair of base and adapter, whose `parent` is the base."""

    id: str
    """what `model` may be"""
    object: Literal["model"] = "model"
    created: int
    """when the server started, seconds since 1970"""
    owned_by: Literal["trimtab"] = "trimtab"
    root: str
    """the base"""
    parent: str | None
    """for a pair the base, else null"""
    max_model_len: int
    """the most tokens of a prompt and its answer together"""
    steering: ModelSteering | None
    """what steers a pair; null for a base"""


class ModelList(Reply):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    """every base, and every pair of base and adapter"""


class MapCard(Reply):
    """One vocabulary map; `report` is in the answer about a single map only."""

    base: str
    """whose tokens receive a shift"""
    adapter: str
    """whose shift it is"""
    object: Literal["map"] = "map"
    fingerprint: str
    """of both vocabularies and how they were matched"""
    quality: MapQuality
    """how much carries over"""
    report: dict[str, Any] | None = Field(default=None, exclude_if=absent)
    """counts, similarity histogram and the worst matches; for a single map only"""


class MapList(Reply):
    """`GET /v1/maps`."""

    object: Literal["list"] = "list"
    data: list[MapCard]
    """one for each pair"""

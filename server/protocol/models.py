"""Models and vocabulary maps that are served."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from server.protocol.objects import ReplyObject, absent


class MapQuality(ReplyObject):
    """How much of a base's vocabulary receives a shift."""

    identity: bool
    """whether base and adapter have the same vocabulary"""
    counts: dict[str, int]
    """the number of base tokens for each kind of match"""
    matched_share: float
    """the share of the base's tokens that receive a shift, 0 to 1"""


class ModelSteering(ReplyObject):
    """The adapter of a `BASE:ADAPTER` pair."""

    adapter: str
    """the adapter's name"""
    kind: str
    """`delta` or `proxy`"""
    version: str
    """a digest of the adapter's files"""
    alpha: float
    """the shift's strength where a request gives none"""
    bridge: str
    """how the shift crosses vocabularies where a request does not say"""
    map: MapQuality
    """how much of the base's vocabulary it reaches"""


class ModelCard(ReplyObject):
    """A name that `model` may have: a base, or a pair of base and adapter."""

    id: str
    """the name: `BASE` or `BASE:ADAPTER`"""
    object: Literal["model"] = "model"
    created: int
    """when the server started, in seconds since 1970"""
    owned_by: Literal["trimtab"] = "trimtab"
    root: str
    """the base's name"""
    parent: str | None
    """the base's name for a pair; null for a base"""
    max_model_len: int
    """the most tokens of a prompt and its answer together"""
    steering: ModelSteering | None
    """the adapter of a pair; null for a base"""


class ModelList(ReplyObject):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    """every base, and every pair of base and adapter"""


class MapCard(ReplyObject):
    """One vocabulary map: how an adapter's shift reaches a base's tokens."""

    base: str
    """the base's name"""
    adapter: str
    """the adapter's name"""
    object: Literal["map"] = "map"
    fingerprint: str
    """a digest of both vocabularies and of how they were matched"""
    quality: MapQuality
    """how much of the base's vocabulary receives a shift"""
    report: dict[str, Any] | None = Field(default=None, exclude_if=absent)
    """counts, a histogram of similarities and the worst matches; only in the reply for one map"""


class MapList(ReplyObject):
    """`GET /v1/maps`."""

    object: Literal["list"] = "list"
    data: list[MapCard]
    """the map of every pair of base and adapter"""

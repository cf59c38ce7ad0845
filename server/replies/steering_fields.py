"""The header and the field of a reply that name the adapters that steered it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from server.protocol.steering import SteeredBy
from steering.types import ResolvedSteering

STEERING_HEADER = "x-trimtab-steering"


def steering_header(steering: Iterable[ResolvedSteering]) -> dict[str, str]:
    """The header: `ADAPTER@VERSION*ALPHA, ...`, or `none`."""
    return {STEERING_HEADER: ", ".join(f"{s.adapter}@{s.version}*{s.alpha:g}" for s in steering) or "none"}


def steered_by(steering: Sequence[ResolvedSteering]) -> list[SteeredBy] | None:
    """The field `steering`; None where nothing steers."""
    return [
        SteeredBy(adapter=s.adapter, version=s.version, alpha=s.alpha, bridge=s.bridge, top_k=s.top_k)
        for s in steering
    ] or None

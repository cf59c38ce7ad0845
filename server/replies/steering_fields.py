"""The header of a reply that names the adapters that steered it."""

from __future__ import annotations

from collections.abc import Iterable

from steering.specs import ResolvedSteering

STEERING_HEADER = "x-trimtab-steering"


def steering_header(steering: Iterable[ResolvedSteering]) -> dict[str, str]:
    """The header: `ADAPTER@VERSION*ALPHA, ...`, or `none`."""
    return {STEERING_HEADER: ", ".join(f"{s.adapter}@{s.version}*{s.alpha:g}" for s in steering) or "none"}

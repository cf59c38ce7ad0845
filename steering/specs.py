"""The two forms of a steering choice: what a request asks for, and what it resolves to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le, MinLen

MAX_ALPHA = 100.0
"""The largest alpha of either sign."""

ANY_ALPHA = (-MAX_ALPHA, MAX_ALPHA)
"""The alphas of a kind that sets no range of its own."""

# The texts under the fields are documentation of the HTTP interface too, and the limits are checked at its edge.


@dataclass(frozen=True, slots=True)
class SteeringSpec:
    """One adapter that steers the request. A setting that is left out is the adapter's own.

    `top_k`: proxy-tuning on black-box bases (Liu et al. 2024, section 6).
    """

    adapter: Annotated[str, MinLen(1)]
    """the name of a loaded adapter"""
    alpha: Annotated[float, Ge(-MAX_ALPHA), Le(MAX_ALPHA)] | None = None
    """the shift's strength; 0 is the base exactly. Default: the adapter's own"""
    top_k: Annotated[int, Ge(1), Le(2**31)] | None = None
    """shift only this many of the base's likeliest tokens. Default: the adapter's own"""
    bridge: str | None = None
    """how the shift crosses vocabularies: `map` or `rescore`. Default: the adapter's own"""


@dataclass(frozen=True, slots=True)
class ResolvedSteering:
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

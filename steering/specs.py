"""The two forms of a steering choice: what a request asks for, and what it resolves to."""

from __future__ import annotations

from dataclasses import dataclass

MAX_ALPHA = 100.0
"""The largest alpha of either sign."""

ANY_ALPHA = (-MAX_ALPHA, MAX_ALPHA)
"""The alphas of a kind that sets no range of its own."""


@dataclass(frozen=True, slots=True)
class SteeringSpec:
    """One adapter that a request asks for. None means the adapter's own default.

    `alpha` 0 is the base exactly. `top_k` limits the shift to the base's k likeliest tokens, as with black-box bases
    (Liu et al. 2024, section 6). `bridge` is a name from `steering.bridges.table.BRIDGES`.
    """

    adapter: str
    alpha: float | None = None
    top_k: int | None = None
    bridge: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedSteering:
    """The adapter version that steers a request, with every default filled in."""

    adapter: str
    version: str
    alpha: float
    bridge: str
    top_k: int | None = None

"""A loaded adapter: its tiny models, and how their logits become a shift."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steering.adapters.kind import ShiftRule
from steering.model.loaded_model import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """A named, versioned adapter. Immutable; `version` is a digest of its files.

    `alpha`, `bridge` and `top_k` are defaults that a request may override. `neutral`: across vocabularies, a base token
    without a counterpart keeps its share of the probability (the shift is centred). Otherwise it gets a shift of 0 from
    an uncentred shift, as published.
    """

    name: str
    version: str
    kind: str
    path: Path
    models: tuple[LoadedModel, ...]
    rule: ShiftRule
    alpha: float = 1.0
    bridge: str = "rescore"
    neutral: bool = True
    top_k: int | None = None

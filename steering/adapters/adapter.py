"""A loaded adapter: one or two tiny models and how their scores become a shift. Immutable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from steering.model.loaded_model import LoadedModel
from steering.types import BridgeName


class ShiftKind(Protocol):
    """How the logits of an adapter's models become its shift."""

    def shift(self, logits: Sequence[Tensor]) -> Tensor:
        """float32 `[rows, V_steering]` a model -> the shift `[rows, V_steering]`, offset arbitrary."""

    def log_ratio(self, logits: Sequence[Tensor]) -> Tensor:
        """The same shift with a natural zero: 0 where the adapter has no opinion. Adds up along tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """A named, versioned adapter; `version` is a digest of its files.

    `neutral`: across vocabularies, what the steering model has no score for stays neutral: unmatched tokens get none of
    a centred shift, by `rescore` the mean of the likeliest (else 0 uncentred, as published).
    """

    name: str
    version: str
    kind: str
    path: Path
    models: tuple[LoadedModel, ...]
    shifting: ShiftKind
    alpha: float = 1.0
    bridge: BridgeName = "rescore"
    neutral: bool = True
    top_k: int | None = None

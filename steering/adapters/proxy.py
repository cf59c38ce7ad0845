"""Proxy adapters: a tuned tiny model minus its untuned self (proxy-tuning, Liu et al. 2024, section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from steering.adapters.shift import Shift
from steering.specs import ANY_ALPHA


@dataclass(frozen=True, slots=True)
class ProxyShift:
    """The shift `expert - antiexpert`. The logits come in that order."""

    @property
    def alpha_range(self) -> tuple[float, float]:
        """No range of its own."""
        return ANY_ALPHA

    def shift(self, logits: Sequence[Tensor]) -> Tensor:
        """The change that tuning made to the tiny model's logits."""
        return logits[0] - logits[1]

    def log_ratio(self, logits: Sequence[Tensor]) -> Tensor:
        """Log of the expert's probability over the anti-expert's."""
        return logits[0].log_softmax(-1) - logits[1].log_softmax(-1)

    def weigh(self, shift: Shift, base: Tensor, alphas: Tensor) -> Shift:
        """Alpha times the shift."""
        return shift.times(alphas)


class ProxyKind:
    """`expert` and `antiexpert`: the folders of the tuned and the untuned model."""

    defaults: Mapping[str, Any] = {"expert": "expert", "antiexpert": "antiexpert"}

    def folders(self, settings: Mapping[str, Any]) -> tuple[Any, ...]:
        """The expert, then the anti-expert."""
        return settings["expert"], settings["antiexpert"]

    def rule(self, settings: Mapping[str, Any]) -> ProxyShift:
        """The same rule for every pair."""
        return ProxyShift()

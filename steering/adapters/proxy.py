"""Proxy adapters: a tuned tiny model less its untuned self (proxy-tuning, Liu et al. 2024, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class ProxyShift:
    """The shift `expert - antiexpert`; logits come in that order."""

    def shift(self, logits: Sequence[Tensor]) -> Tensor:
        """What tuning changed in the tiny model's logits."""
        return logits[0] - logits[1]

    def log_ratio(self, logits: Sequence[Tensor]) -> Tensor:
        """Log of the expert's probability over the anti-expert's."""
        return logits[0].log_softmax(-1) - logits[1].log_softmax(-1)

"""Delta adapters: one tiny model whose logits are the shift (Cross-model Control, Wu et al. 2024, section 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from steering.adapters.shift import Shift
from steering.errors import AdapterLoadError
from steering.specs import ANY_ALPHA

_NORMALISATIONS = ("add", "base", "both")


@dataclass(frozen=True, slots=True)
class DeltaShift:
    """The delta's logits as the shift.

    `normalised` is the published normalisation `both`: log_softmax on the delta too. The other two, `add` and `base`,
    differ by a constant per row, which cancels.
    """

    normalised: bool = False

    @property
    def alpha_range(self) -> tuple[float, float]:
        """No range of its own."""
        return ANY_ALPHA

    def shift(self, logits: Sequence[Tensor]) -> Tensor:
        """The delta's logits, normalised or not."""
        return logits[0].log_softmax(-1) if self.normalised else logits[0]

    def log_ratio(self, logits: Sequence[Tensor]) -> Tensor:
        """Log of the delta's probability over the uniform one."""
        return logits[0].log_softmax(-1) + math.log(logits[0].shape[-1])

    def weigh(self, shift: Shift, base: Tensor, alphas: Tensor) -> Shift:
        """Alpha times the shift."""
        return shift.times(alphas)


class DeltaKind:
    """`model`: the delta's folder. `normalisation`: `add`, `base` or `both`."""

    defaults: Mapping[str, Any] = {"model": ".", "normalisation": "base"}

    def folders(self, settings: Mapping[str, Any]) -> tuple[Any, ...]:
        """The delta alone."""
        return (settings["model"],)

    def rule(self, settings: Mapping[str, Any]) -> DeltaShift:
        """Raises AdapterLoadError for an unknown normalisation."""
        normalisation = settings["normalisation"]
        if normalisation not in _NORMALISATIONS:
            raise AdapterLoadError(f"normalisation must be add, base or both, not {normalisation!r}")
        return DeltaShift(normalised=normalisation == "both")

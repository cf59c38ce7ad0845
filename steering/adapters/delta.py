"""Delta adapters: one tiny model whose logits are the shift (Cross-model Control, Wu et al. 2024, section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from steering.types import AdapterLoadError


@dataclass(frozen=True, slots=True)
class DeltaShift:
    """`normalised`: the published normalisation `both`, log_softmax on the delta too.

    `add` and `base` differ by a constant of the whole row, which cancels, so that one form serves both.
    """

    normalised: bool = False

    def shift(self, logits: Sequence[Tensor]) -> Tensor:
        """The delta's own logits, normalised or not."""
        return logits[0].log_softmax(-1) if self.normalised else logits[0]

    def log_ratio(self, logits: Sequence[Tensor]) -> Tensor:
        """Log of the delta's probability over the uniform one."""
        return logits[0].log_softmax(-1) + math.log(logits[0].shape[-1])


def delta_shift(normalisation: str) -> DeltaShift:
    """`add`, `base` or `both`; raises AdapterLoadError for anything else."""
    if normalisation not in ("add", "base", "both"):
        raise AdapterLoadError(f"normalisation must be add, base or both, not {normalisation!r}")
    return DeltaShift(normalised=normalisation == "both")

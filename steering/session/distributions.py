"""Scores of the base and steered scores, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from steering.device.transfer import on_device
from steering.session.row import SteeredRow


@dataclass(frozen=True, slots=True, eq=False)
class Distributions:
    """Base and steered scores, each float32 `[positions, V_base]`: log probabilities up to a constant per row.

    `steered - base` is the shift. Both are the same tensor where nothing is steered. The scores of rows in `faults` are
    undefined.
    """

    base: Tensor
    steered: Tensor
    faults: Mapping[SteeredRow, Exception] = field(default_factory=dict)

    def select(self, rows: Sequence[int]) -> Distributions:
        """The same for some of the positions, in ascending order."""
        if len(rows) == self.base.shape[0]:
            return self
        where = on_device(rows, self.base.device)
        base = self.base.index_select(0, where)
        return Distributions(base, base if self.steered is self.base else self.steered.index_select(0, where))

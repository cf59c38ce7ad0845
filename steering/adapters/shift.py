"""The change that an adapter makes to the base's scores."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """A shift over the base's vocabulary, zero outside `columns`.

    values: float32 `[rows, M]`. columns: int64 `[M]`, distinct; None where `values` has every base token.
    factors: float32 `[rows]`, by which `values` are still to be multiplied; None for 1. Multiplying while adding saves
    a pass over the vocabulary.
    """

    values: Tensor
    columns: Tensor | None = None
    factors: Tensor | None = None

    def times(self, factors: Tensor) -> Shift:
        """The shift multiplied by `factors` `[rows]`."""
        return Shift(self.values, self.columns, factors if self.factors is None else self.factors * factors)

    def add_to(self, scores: Tensor) -> None:
        """Add the shift to `scores` `[rows, V_base]` in place."""
        if self.columns is not None:
            values = self.values if self.factors is None else self.values * self.factors[:, None]
            scores.scatter_add_(1, self.columns.expand_as(values), values)
        elif self.factors is None:
            scores.add_(self.values)
        else:
            scores.addcmul_(self.values, self.factors[:, None])

    def added_to(self, scores: Tensor) -> Tensor:
        """A new tensor: `scores` `[rows, V_base]` with the shift added."""
        if self.columns is None and self.factors is not None:
            return scores.addcmul(self.values, self.factors[:, None])
        total = scores.clone()
        self.add_to(total)
        return total

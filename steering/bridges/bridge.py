"""The interface of a bridge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from steering.adapters.shift import Shift
from steering.steerers.state import SteererState
from steering.steerers.steerer import Steerer


class Bridge(Protocol):
    """Carries an adapter's shift to the base's vocabulary. A bridge is one file and one row of `BRIDGES`."""

    def __call__(
        self,
        steerer: Steerer,
        states: Sequence[SteererState],
        logits: Sequence[Tensor],
        base: Tensor,
        alphas: Tensor,
    ) -> Shift:
        """The shift at some positions, before it is weighed by alpha.

        states: each position's state, standing at that position. logits: float32 `[positions, V_steering]` of each of
        the adapter's models. base: the base's scores there, float32 `[positions, V_base]`. alphas: `[positions]`, for a
        bridge that spends more where a shift matters more. A bridge must not change its arguments.
        """
        ...

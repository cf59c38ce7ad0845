"""The shift over a shared vocabulary: it needs no bridge."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from steering.adapters.shift import Shift
from steering.device.transfer import on_device
from steering.steerers.state import SteererState
from steering.steerers.steerer import Steerer


def shared_vocabulary(
    steerer: Steerer,
    states: Sequence[SteererState],
    logits: Sequence[Tensor],
    base: Tensor,
    alphas: Tensor,
) -> Shift:
    """The steering model's own shift."""
    return Shift(steering_shift(steerer, states, logits))


def steering_shift(steerer: Steerer, states: Sequence[SteererState], logits: Sequence[Tensor]) -> Tensor:
    """The shift over the steering vocabulary, `[positions, V_steering]`, 0 where the history is empty."""
    shift = steerer.adapter.rule.shift(logits)
    silent = [state.window.length == 0 for state in states]
    if any(silent):
        shift = shift.masked_fill(on_device(silent, shift.device)[:, None], 0.0)
    return shift

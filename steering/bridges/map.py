"""The bridge `map`: one gather along the vocabulary map. Unmatched base tokens get nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.adapters.shift import Shift
from steering.bridges.shared import steering_shift
from steering.crossing.map_tensors import MapTensors, pick
from steering.steerers.state import SteererState
from steering.steerers.steerer import Steerer


def map_bridge(
    steerer: Steerer,
    states: Sequence[SteererState],
    logits: Sequence[Tensor],
    base: Tensor,
    alphas: Tensor,
) -> Shift:
    """Each matched base token gets its counterpart's shift, centred if the adapter says so."""
    shift = steering_shift(steerer, states, logits)
    return carry(shift, steerer.crossing.tensors, base, neutral=steerer.adapter.neutral)


def carry(shift: Tensor, tensors: MapTensors, base: Tensor, *, neutral: bool) -> Shift:
    """`shift` float32 `[rows, V_steering]` on the matched base tokens, given the base's scores `[rows, V_base]`.

    A shift has an arbitrary offset. The offset cancels where every token is matched, and does not where some are
    unmatched: `neutral` takes it off.
    """
    values = pick(shift, tensors.counterparts)
    if neutral and len(tensors.columns):
        values = values - mean_shift(values, pick(base, tensors.columns))[:, None]
    return Shift(values, tensors.columns)


def mean_shift(values: Tensor, base: Tensor) -> Tensor:
    """The matched shifts' mean under the base, `[rows]`. Both arguments are `[rows, M]`, over the matched tokens.

    With this mean taken off, unmatched tokens together keep at most the share that the base gives them: all of it where
    the adapter has no opinion, less where it is certain of a matched token. The mean weighs the *matched* probability
    only, so that any offset cancels exactly.
    """
    mean: Tensor = torch.linalg.vecdot(base.softmax(-1), values)
    return mean

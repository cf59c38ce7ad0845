"""Fusion: `log_softmax(base) + sum(alpha * bridged shift)`, renormalised. Pure functions over float32 `[rows, V]`.

Everything here works on *scores*: log probabilities up to a constant of the row, which the base's logits are too. A
row is only normalised where somebody wants its probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.bridges.map import Bridged


def add_shift(
    steered: Tensor, base: Tensor, bridged: Bridged, alphas: Tensor, top_ks: Sequence[int | None]
) -> None:
    """Add an adapter's shift times each row's alpha to `steered` `[rows, V]`, in place.

    Where a row has a `top_k`, only the k likeliest tokens of `base` `[rows, V]` are shifted. alphas `[rows]`.
    """
    limited = {row: k for row, k in enumerate(top_ks) if k is not None and k < base.shape[1]}
    untouched = {row: steered[row].clone() for row in limited}
    if bridged.columns is None:
        steered.addcmul_(bridged.values, alphas[:, None])
    else:
        values = bridged.values * alphas[:, None]
        steered.scatter_add_(1, bridged.columns.expand_as(values), values)
    for row, k in limited.items():
        kept = base[row].topk(k).indices
        untouched[row][kept] = steered[row, kept]
        steered[row] = untouched[row]


def divergence(steered: Tensor, base: Tensor) -> Tensor:
    """KL(steered || base) of each row of scores `[rows, V]`, in nats, float32 `[rows]`."""
    ours, theirs = steered.log_softmax(-1), base.log_softmax(-1)
    probabilities = ours.exp()
    # What has no probability adds nothing, however far it was moved.
    moved = torch.where(probabilities > 0, ours - theirs, 0.0)
    kl: Tensor = torch.linalg.vecdot(probabilities, moved)
    return kl.clamp_(min=0.0)


def best(scores: Tensor) -> Tensor:
    """Index of each row's largest score, the first of equals, int64 `[rows]`."""
    if scores.device.type == "cpu":
        # numpy's is vectorised: torch's takes six times as long over a large vocabulary.
        return torch.from_numpy(scores.numpy().argmax(-1))
    return scores.argmax(-1)

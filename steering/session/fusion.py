"""Fusion: `log_softmax(base) + sum(weighed shifts)`. Pure functions over float32 `[rows, V]`.

They work on *scores*, log probabilities up to a constant per row, as the base's logits are. A row is normalised only
where its probabilities are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.adapters.shift import Shift


def add_shift(steered: Tensor, base: Tensor, shift: Shift, top_ks: Sequence[int | None]) -> None:
    """Add a weighed shift to `steered` `[rows, V]` in place.

    A row with a `top_k` gets it on the k likeliest tokens of `base` `[rows, V]` only.
    """
    kept = {
        row: base[row].topk(k).indices for row, k in enumerate(top_ks) if k is not None and k < base.shape[1]
    }
    before = {row: steered[row].clone() for row in kept}
    # An error after this line would leave `steered` changed, and the caller's next try would add the shift again.
    shift.add_to(steered)
    for row, tokens in kept.items():
        before[row][tokens] = steered[row, tokens]
        steered[row] = before[row]


def divergence(steered: Tensor, base: Tensor) -> Tensor:
    """KL(steered || base) of each row of scores `[rows, V]`, in nats, float32 `[rows]`."""
    ours, theirs = steered.log_softmax(-1), base.log_softmax(-1)
    probabilities = ours.exp()
    # A token of probability 0 adds nothing, however far it was moved.
    moved = torch.where(probabilities > 0, ours - theirs, 0.0)
    kl: Tensor = torch.linalg.vecdot(probabilities, moved)
    return kl.clamp_(min=0.0)


def best(scores: Tensor) -> Tensor:
    """Index of each row's largest score, the first of equals, int64 `[rows]`."""
    if scores.device.type == "cpu":
        # numpy's argmax is vectorised. torch's takes six times as long over a large vocabulary.
        return torch.from_numpy(scores.numpy().argmax(-1))
    return scores.argmax(-1)

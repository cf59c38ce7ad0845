"""Fusion: `log_softmax(base) + sum(alpha * bridged shift)`, renormalised. Pure functions over `[rows, V]`, float32."""

from __future__ import annotations

import torch
from torch import Tensor


def scale_shift(shift: Tensor, base_logprobs: Tensor, alphas: Tensor, top_ks: list[int | None]) -> Tensor:
    """An adapter's bridged shift times each row's alpha, kept off all but the base's `top_k` tokens where asked for.

    shift, base_logprobs `[rows, V]`, alphas `[rows]`.
    """
    scaled = shift * alphas[:, None]
    for row, top_k in enumerate(top_ks):
        if top_k is not None and top_k < shift.shape[1]:
            kept = base_logprobs[row].topk(top_k).indices
            limited = torch.zeros_like(scaled[row])
            limited[kept] = scaled[row, kept]
            scaled[row] = limited
    return scaled


def fuse(base_logprobs: Tensor, shift: Tensor) -> Tensor:
    """Steered log probabilities `[rows, V]`. Rows whose shift is all zero come out as they went in."""
    steered = (base_logprobs + shift).log_softmax(-1)
    touched = (shift != 0).any(-1, keepdim=True)
    return torch.where(touched, steered, base_logprobs)


def divergence(steered: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """What steering did to each row.

    KL(steered || base) in nats, float32 `[rows]`, and whether the likeliest token changed, bool `[rows]`.
    """
    difference = torch.where(steered == base, 0.0, steered - base)  # -inf less -inf is no difference
    kl = (steered.exp() * difference).sum(-1)
    return kl, steered.argmax(-1) != base.argmax(-1)

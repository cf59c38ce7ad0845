"""What a delta is trained to do: learn a response, keep the base as it is, or forget a response.

Sources: Cross-model Control (Wu et al., NeurIPS 2024) for training the delta beside a frozen base and for
gradient difference;
Negative Preference Optimization (Zhang et al., 2024, arXiv 2404.05868, equation 3) for `npo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from steering.training.data import Batch

KeepLoss = Literal["kl", "ce"]
ForgetLoss = Literal["refusal", "difference", "npo"]


@dataclass(frozen=True, slots=True)
class ObjectiveWeights:
    """How the three objectives are measured and weighed.

    `keep_loss`: "kl" is KL(steered || base), "ce" cross-entropy on the kept response. `forget_loss`: "refusal" trains
    another response in the forgotten one's place (the examples are rewritten before they are encoded), "difference"
    climbs the forgotten response's cross-entropy up to `forget_limit` nats a token, "npo" lowers its likelihood
    relative to the base's, ever more gently. `npo_beta` is NPO's inverse temperature.
    """

    learn: float = 1.0
    keep: float = 1.0
    forget: float = 1.0
    keep_loss: KeepLoss = "kl"
    forget_loss: ForgetLoss = "refusal"
    forget_limit: float = 8.0
    npo_beta: float = 0.1


def steered_logprobs(base_logits: torch.Tensor, delta_logits: torch.Tensor) -> torch.Tensor:
    """`log_softmax(log_softmax(base) + delta)` over a shared vocabulary: `[tokens, V]`, float32."""
    return torch.log_softmax(torch.log_softmax(base_logits.float(), -1) + delta_logits.float(), -1)


def objective_loss(
    base_logits: torch.Tensor, delta_logits: torch.Tensor, batch: Batch, weights: ObjectiveWeights
) -> torch.Tensor:
    """The weighed sum of the objectives of one batch's rows.

    Both logits are `[tokens, V]`: one row for each response token of the batch (`batch.response[:, 1:]`, in row-major
    order), holding the scores from which that token is drawn. Each objective is the mean over its own tokens, weighed
    by its share of the batch's rows, so that a batch's composition does not change an example's weight.
    """
    wanted = batch.response[:, 1:]
    targets = batch.ids[:, 1:][wanted]
    owners = torch.arange(len(batch.ids), device=wanted.device).unsqueeze(1).expand_as(wanted)[wanted]
    steered = steered_logprobs(base_logits, delta_logits)
    base = torch.log_softmax(base_logits.float(), -1)
    total = steered.new_zeros(())
    for objective, weight in (("learn", weights.learn), ("keep", weights.keep), ("forget", weights.forget)):
        rows = torch.tensor([each == objective for each in batch.objectives], device=wanted.device)
        chosen = rows[owners]
        if not weight or not bool(chosen.any()):
            continue
        share = float(rows.float().mean())
        if objective == "learn" or (objective == "forget" and weights.forget_loss == "refusal"):
            value = functional.nll_loss(steered[chosen], targets[chosen])
        elif objective == "keep":
            value = keep_loss(steered[chosen], base[chosen], targets[chosen], weights.keep_loss)
        else:
            value = forget_loss(steered[chosen], base[chosen], targets[chosen], owners[chosen], weights)
        total = total + weight * share * value
    return total


def keep_loss(
    steered: torch.Tensor, base: torch.Tensor, targets: torch.Tensor, kind: KeepLoss
) -> torch.Tensor:
    """KL(steered || base) a token, or cross-entropy; `steered` and `base` are log probabilities `[tokens, V]`."""
    if kind == "ce":
        return functional.nll_loss(steered, targets)
    return (steered.exp() * (steered - base)).sum(-1).mean()


def forget_loss(
    steered: torch.Tensor,
    base: torch.Tensor,
    targets: torch.Tensor,
    owners: torch.Tensor,
    weights: ObjectiveWeights,
) -> torch.Tensor:
    """Lower the likelihood of `targets`; `owners` `[tokens]` says which sequence each token belongs to."""
    now = steered.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if weights.forget_loss == "difference":
        return -torch.clamp(-now, max=weights.forget_limit).mean()
    before = base.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    _, owner = owners.unique(return_inverse=True)
    ratio = now.new_zeros(int(owner.max()) + 1).index_add(0, owner, now - before)
    return -2.0 / weights.npo_beta * functional.logsigmoid(-weights.npo_beta * ratio).mean()

"""The training objectives: learn a response, keep the reference's behaviour, forget a response, or imitate a base that
is told what to do.

Sources: Cross-model Control (Wu et al., NeurIPS 2024) for training the delta beside a frozen base and for gradient
difference; Negative Preference Optimization (Zhang et al., 2024, arXiv 2404.05868, equation 3) for `npo`;
context distillation (Askell et al., 2021, arXiv 2112.00861, section 2.2) for imitation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from steering.examples import Objective
from steering.training.data import Batch, StepTotals

KeepLoss = Literal["kl", "ce"]
ForgetLoss = Literal["refusal", "difference", "npo"]


@dataclass(frozen=True, slots=True)
class ObjectiveWeights:
    """The losses and weights of the three objectives.

    `keep_loss`: "kl" is KL(steered || reference), "ce" cross-entropy on the kept response. `forget_loss`: "refusal"
    trains a refusal in place of the forgotten response (the examples are rewritten before they are encoded),
    "difference" raises the forgotten response's cross-entropy up to `forget_limit` nats a token, "npo" lowers its
    likelihood relative to the reference's, with a gradient that fades as it falls. `npo_beta` is NPO's inverse
    temperature.
    """

    learn: float = 1.0
    keep: float = 1.0
    forget: float = 1.0
    keep_loss: KeepLoss = "kl"
    forget_loss: ForgetLoss = "refusal"
    forget_limit: float = 8.0
    npo_beta: float = 0.1

    def of(self, objective: Objective) -> float:
        """The weight of an objective. To imitate is to learn."""
        weights = {"learn": self.learn, "keep": self.keep, "forget": self.forget, "imitate": self.learn}
        return weights[objective]

    def need_reference(self, objective: Objective) -> bool:
        """True if the loss of this objective depends on the reference's distribution."""
        return (objective == "keep" and self.keep_loss == "kl") or (
            objective == "forget" and self.forget_loss == "npo"
        )


@dataclass(frozen=True, slots=True)
class Loss:
    """A batch's part of a step's loss: `total` is minimised; `terms` are the unweighted means by objective."""

    total: torch.Tensor
    terms: dict[Objective, float]


def steered_logprobs(base_logits: torch.Tensor, delta_logits: torch.Tensor) -> torch.Tensor:
    """`log_softmax(log_softmax(base) + delta)` over a shared vocabulary: `[tokens, V]`, float32."""
    return torch.log_softmax(torch.log_softmax(base_logits.float(), -1) + delta_logits.float(), -1)


def objective_loss(
    steered: torch.Tensor,
    reference: torch.Tensor | None,
    batch: Batch,
    weights: ObjectiveWeights,
    totals: StepTotals,
    told: torch.Tensor | None = None,
) -> Loss:
    """The weighted sum of the objectives of one batch's rows, as its part of the step that `totals` counts.

    `steered` and `reference` are float32 log probabilities `[tokens, V]`: one row for each response token of the
    batch (`batch.response[:, 1:]`, in row-major order), holding the distribution from which that token is drawn.
    The reference is the unsteered base beside a delta and the untuned model beside an expert; it may be None where
    no objective needs it. `told` is the log probabilities of the base that is told, for the tokens of the rows to
    imitate alone: their loss is KL(told || steered). Each objective is the mean over its own tokens in the step,
    weighted by its share of the step's rows, so that a batch's composition does not change an example's weight.
    Raises ValueError for a missing reference.
    """
    wanted = batch.response[:, 1:]
    targets = batch.ids[:, 1:][wanted]
    owners = response_owners(batch)
    # Starts from a zero with a gradient: a batch whose rows all have weight 0 must still run backward.
    total = 0.0 * steered[:1].sum()
    terms: dict[Objective, float] = {}
    for objective in dict.fromkeys(batch.objectives):
        weight = weights.of(objective)
        if not weight:
            continue
        chosen = response_tokens(batch, objective)
        if objective == "imitate":
            before = told
        else:
            before = (
                reference[chosen] if reference is not None and weights.need_reference(objective) else None
            )
        mean = _mean_loss(
            objective, steered[chosen], before, targets[chosen], owners[chosen], weights, totals
        )
        total = total + weight * totals.share(objective) * mean
        terms[objective] = float(mean.detach())
    return Loss(total, terms)


def response_owners(batch: Batch) -> torch.Tensor:
    """The row of each response token of a batch, int64 `[tokens]`, in row-major order."""
    wanted = batch.response[:, 1:]
    return torch.arange(len(batch.ids), device=wanted.device).unsqueeze(1).expand_as(wanted)[wanted]


def response_tokens(batch: Batch, objective: Objective) -> torch.Tensor:
    """Which response tokens of a batch belong to rows of this objective, bool `[tokens]`."""
    rows = torch.tensor([each == objective for each in batch.objectives], device=batch.ids.device)
    return rows[response_owners(batch)]


def _mean_loss(
    objective: Objective,
    steered: torch.Tensor,
    reference: torch.Tensor | None,
    targets: torch.Tensor,
    owners: torch.Tensor,
    weights: ObjectiveWeights,
    totals: StepTotals,
) -> torch.Tensor:
    """The loss of one objective's tokens in a batch, summed and divided by the step's count.

    `owners` `[tokens]` is the row of each token.
    """
    nll = functional.nll_loss(steered, targets, reduction="none")
    tokens = totals.tokens[objective]
    if objective == "imitate":
        told = _needed(reference)
        return (told.exp() * (told - steered)).sum() / tokens
    if objective == "keep" and weights.keep_loss == "kl":
        return (steered.exp() * (steered - _needed(reference))).sum() / tokens
    if objective == "forget" and weights.forget_loss == "difference":
        return -torch.clamp(nll, max=weights.forget_limit).sum() / tokens
    if objective == "forget" and weights.forget_loss == "npo":
        before = _needed(reference).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        _, owner = owners.unique(return_inverse=True)
        ratio = nll.new_zeros(int(owner.max()) + 1).index_add(0, owner, -nll - before)
        gentle = functional.logsigmoid(-weights.npo_beta * ratio).sum()
        return -2.0 / weights.npo_beta * gentle / totals.rows[objective]
    return nll.sum() / tokens


def _needed(reference: torch.Tensor | None) -> torch.Tensor:
    if reference is None:
        raise ValueError("this loss is relative to a reference model, and none is given")
    return reference

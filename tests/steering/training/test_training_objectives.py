"""The objectives against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from steering.examples import EncodedExample, Objective
from steering.training import Batch, ObjectiveWeights, StepTotals
from steering.training.objectives import ForgetLoss, objective_loss, steered_logprobs

ROWS = ((1, 2, 3, 4), (1, 5, 6))
STARTS = (2, 1)


def one_batch(objective: Objective) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[1, 2, 3, 4], [1, 5, 6, 0]])
    response = torch.tensor([[False, False, True, True], [False, True, True, False]])
    batch = Batch(ids, (ids > 0).long(), response, (objective, objective))
    generator = torch.Generator().manual_seed(1)
    return batch, torch.randn(4, 8, generator=generator), torch.randn(4, 8, generator=generator)


TARGETS = torch.tensor([3, 4, 5, 6])


def loss_of(base: torch.Tensor, delta: torch.Tensor, batch: Batch, weights: ObjectiveWeights) -> torch.Tensor:
    """The loss of a step that has this batch alone, for the steered distribution."""
    rows = [EncodedExample(*row) for row in zip(ROWS, STARTS, batch.objectives, strict=True)]
    reference = torch.log_softmax(base, -1)
    return objective_loss(steered_logprobs(base, delta), reference, batch, weights, StepTotals.of(rows)).total


def test_learning_is_cross_entropy_of_the_steered_distribution() -> None:
    batch, base, delta = one_batch("learn")
    expected = torch.nn.functional.cross_entropy(base + delta, TARGETS)
    assert torch.allclose(loss_of(base, delta, batch, ObjectiveWeights()), expected)


def test_keeping_is_kl_to_the_base_and_nothing_without_a_shift() -> None:
    batch, base, delta = one_batch("keep")
    steered, plain = steered_logprobs(base, delta), torch.log_softmax(base, -1)
    expected = torch.nn.functional.kl_div(plain, steered, reduction="none", log_target=True).sum(-1).mean()
    assert torch.allclose(loss_of(base, delta, batch, ObjectiveWeights()), expected)
    flat = torch.full_like(delta, 3.0)
    assert float(loss_of(base, flat, batch, ObjectiveWeights())) == pytest.approx(0.0, abs=1e-6)


def test_gradient_difference_stops_at_its_limit() -> None:
    batch, base, delta = one_batch("forget")
    delta[torch.arange(4), TARGETS] = -50.0
    delta.requires_grad_(True)
    loss = loss_of(base, delta, batch, ObjectiveWeights(forget_loss="difference", forget_limit=2.0))
    assert float(loss.detach()) == pytest.approx(-2.0)
    loss.backward()
    assert delta.grad is not None and float(delta.grad.abs().sum()) == 0.0


def test_npo_without_a_shift_is_constant() -> None:
    batch, base, delta = one_batch("forget")
    weights = ObjectiveWeights(forget_loss="npo", npo_beta=0.5)
    assert float(loss_of(base, torch.zeros_like(delta), batch, weights)) == pytest.approx(4 * math.log(2))


def test_a_batch_weighs_objectives_by_their_rows() -> None:
    batch, base, delta = one_batch("learn")
    mixed = Batch(batch.ids, batch.attention, batch.response, ("learn", "keep"))
    steered, plain = steered_logprobs(base, delta), torch.log_softmax(base, -1)
    learnt = torch.nn.functional.nll_loss(steered[:2], TARGETS[:2])
    kept = (steered[2:].exp() * (steered[2:] - plain[2:])).sum(-1).mean()
    found = loss_of(base, delta, mixed, ObjectiveWeights(keep=3.0))
    assert torch.allclose(found, 0.5 * learnt + 0.5 * 3.0 * kept)


@pytest.mark.parametrize(
    ("objective", "kind"),
    [("learn", "refusal"), ("keep", "refusal"), ("forget", "npo"), ("forget", "difference")],
)
def test_a_step_is_the_same_in_parts(objective: Objective, kind: ForgetLoss) -> None:
    batch, base, delta = one_batch("learn")
    weights = ObjectiveWeights(forget_loss=kind)
    rows = [EncodedExample(ROWS[0], 2, "learn"), EncodedExample(ROWS[1], 1, objective)]
    totals = StepTotals.of(rows)
    steered, reference = steered_logprobs(base, delta), torch.log_softmax(base, -1)
    objectives = tuple(row.objective for row in rows)
    whole = Batch(batch.ids, batch.attention, batch.response, objectives)
    one = objective_loss(steered, reference, whole, weights, totals)
    two = []
    for row, tokens in ((slice(0, 1), slice(0, 2)), (slice(1, 2), slice(2, 4))):
        part = Batch(batch.ids[row], batch.attention[row], batch.response[row], objectives[row])
        two.append(objective_loss(steered[tokens], reference[tokens], part, weights, totals))
    assert torch.allclose(one.total, two[0].total + two[1].total)
    together = sum(each.terms.get(objective, 0.0) for each in two)
    assert together == pytest.approx(one.terms[objective])


def test_a_relative_loss_without_a_reference_is_refused() -> None:
    batch, base, delta = one_batch("keep")
    totals = StepTotals.of([EncodedExample(*row, "keep") for row in zip(ROWS, STARTS, strict=True)])
    with pytest.raises(ValueError, match="reference"):
        objective_loss(steered_logprobs(base, delta), None, batch, ObjectiveWeights(), totals)

"""Examples that are held out of training: their loss after each epoch, and the weights that were best on them."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from steering.examples import EncodedExample, Example
from steering.training.data import StepTotals, collate
from steering.training.recipe import HeldOutRecord, Recipe
from steering.training.scorer import ResponseScorer
from steering.training.stepper import LossOf

# Without a share given, a tenth is held out, but nothing of fewer examples than this, and no more than the second.
_ENOUGH, _MOST = 100, 256
_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows that are measured before the first step, after every `every` steps and after the last, by their own loss."""

    rows: Sequence[EncodedExample]
    loss: LossOf
    every: int


def held_out_of(
    rows: Sequence[EncodedExample], loss: LossOf, encoded: Sequence[EncodedExample], recipe: Recipe
) -> HeldOut | None:
    """Held-out rows that are measured after each epoch over `encoded`; None if there are none."""
    return HeldOut(rows, loss, -(-len(encoded) // recipe.batch_size)) if rows else None


def split_held_out(
    examples: Sequence[Example], share: float | None, seed: int
) -> tuple[list[Example], list[Example]]:
    """The examples to train on and those held out: `share` of each objective's, drawn by the seed, in their order.

    Without a share: a tenth, at most 256 examples, and none of fewer than 100. Raises ValueError if a share above 0
    holds out no example.
    """
    wanted = share
    if wanted is None:
        wanted = min(_SHARE, _MOST / len(examples)) if len(examples) >= _ENOUGH else 0.0
    by_objective: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        by_objective[example.objective].append(index)
    rng = random.Random(seed)
    held: set[int] = set()
    for indices in by_objective.values():
        held.update(rng.sample(indices, int(wanted * len(indices))))
    if share and not held:
        raise ValueError(f"held-out: a share of {share:g} of {len(examples)} examples is no example")
    parts: tuple[list[Example], list[Example]] = [], []
    for index, example in enumerate(examples):
        parts[index in held].append(example)
    return parts


class HeldOutMeter:
    """Measures held-out rows during a run and keeps the weights with the lowest loss, the untrained ones apart.

    `records` are the measurements so far, `best` the weights, on the CPU, by their names.
    """

    def __init__(
        self, held_out: HeldOut, scorer: ResponseScorer, accelerator: Any, rows: int, pad_id: int
    ) -> None:
        self._held_out, self._scorer, self._accelerator = held_out, scorer, accelerator
        self._rows, self._pad_id = rows, pad_id
        self.records: list[HeldOutRecord] = []
        self.best: dict[str, torch.Tensor] = {}

    def resume(self, records: Sequence[HeldOutRecord], best: Mapping[str, torch.Tensor]) -> None:
        """Go on from a checkpoint."""
        self.records, self.best = list(records), dict(best)

    def is_due(self, step: int, total: int) -> bool:
        """True if the rows are to be measured when `step` of `total` steps are done."""
        return step % self._held_out.every == 0 or step == total

    @property
    def lowest(self) -> float:
        """The lowest loss after a step; infinity before the first."""
        return min((each.loss for each in self.records if each.step), default=math.inf)

    def measure(self, step: int) -> HeldOutRecord:
        """Measure when `step` steps are done. Draws no random number, so that training goes on as without it."""
        lowest = self.lowest
        record = self._measured(step)
        self.records.append(record)
        if step and record.loss < lowest:
            self.best = {
                name: weight.detach().to("cpu", copy=True) for name, weight in self._trained_weights()
            }
        return record

    @torch.no_grad()
    def restore_best(self) -> None:
        """Put the best weights back into the model."""
        for name, weight in self._trained_weights():
            if name in self.best:
                weight.copy_(self.best[name])

    @torch.no_grad()
    def _measured(self, step: int) -> HeldOutRecord:
        rows = sorted(self._held_out.rows, key=lambda row: len(row.ids))
        totals = StepTotals.of(rows)
        loss, terms = 0.0, dict[str, float]()
        training = self._scorer.training
        self._scorer.eval()
        for begin in range(0, len(rows), self._rows):
            batch = collate(rows[begin : begin + self._rows], self._pad_id).to(self._accelerator.device)
            with self._accelerator.autocast():
                value = self._held_out.loss(self._scorer, batch, totals)
            loss += float(value.total)
            for name, mean in value.terms.items():
                terms[name] = terms.get(name, 0.0) + mean
        self._scorer.train(training)
        return HeldOutRecord(step, loss, terms)

    def _trained_weights(self) -> list[tuple[str, torch.Tensor]]:
        return [(name, each) for name, each in self._scorer.named_parameters() if each.requires_grad]

"""One optimiser step over a group of rows, split over processes and into parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from steering.examples import EncodedExample
from steering.training.data import Batch, StepTotals, collate
from steering.training.objectives import Loss
from steering.training.recipe import Recipe, StepRecord
from steering.training.scorer import ResponseScorer

LossOf = Callable[[ResponseScorer, Batch, StepTotals], Loss]
"""The loss of a batch, given the model as a scorer and the counts of the batch's whole step."""


class TrainingDivergedError(RuntimeError):
    """The loss is NaN or infinite; a lower learning rate or a lower weight of forgetting may help."""


class Stepper:
    """Takes optimiser steps, each over a group of rows that is split over processes and into parts."""

    def __init__(
        self, accelerator: Any, scorer: ResponseScorer, loss: LossOf, recipe: Recipe, pad_id: int
    ) -> None:
        config = recipe.optimiser
        optimiser = torch.optim.AdamW(
            _groups(scorer, config.weight_decay), lr=config.learning_rate, betas=config.betas, fused=True
        )
        self._accelerator = accelerator
        self._scorer, self._optimiser = accelerator.prepare(scorer, optimiser)
        self._loss, self._clip, self._pad_id = loss, config.clip, pad_id
        self._parts, self._weights = recipe.accumulate, recipe.weights

    def step(self, rows: Sequence[EncodedExample], rate: float, where: str) -> StepRecord:
        """Take one step at the learning rate `rate`. Raises `TrainingDivergedError` before the weights change."""
        accelerator = self._accelerator
        totals = StepTotals.of(rows)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        names = sorted(name for name in totals.rows if self._weights.of(name))
        sums = torch.zeros(1 + len(names), dtype=torch.float64)
        mine = range(accelerator.process_index * self._parts, (accelerator.process_index + 1) * self._parts)
        for part in mine:
            share = rows[part :: self._parts * accelerator.num_processes]
            if not share and accelerator.num_processes == 1:
                continue
            # Every process must take part in the gradients' reduction; one without rows computes a row of weight 0.
            batch = collate(share or rows[:1], self._pad_id).to(accelerator.device)
            with nullcontext() if part == mine[-1] else accelerator.no_sync(self._scorer):
                with accelerator.autocast():
                    value = self._loss(self._scorer, batch, totals)
                # The mean over processes would divide again: each part is already divided by the whole step's counts.
                accelerator.backward(value.total * (accelerator.num_processes if share else 0))
            if share:
                sums[0] += float(value.total.detach())
                for place, name in enumerate(names, start=1):
                    sums[place] += value.terms.get(name, 0.0)
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.to(accelerator.device), "sum")
        loss, *means = sums.tolist()
        if not math.isfinite(loss):
            raise TrainingDivergedError(f"{where}: the loss is {loss}")
        accelerator.clip_grad_norm_(self._scorer.parameters(), self._clip)
        self._optimiser.step()
        return StepRecord(loss, rate, dict(zip(names, means, strict=True)))

    def any_process(self, flag: bool) -> bool:
        """True in every process if `flag` is true in any."""
        if self._accelerator.num_processes == 1:
            return flag
        value = torch.tensor([float(flag)], device=self._accelerator.device)
        return bool(self._accelerator.reduce(value, "sum").item() > 0)


def _groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The parameters in two groups: matrices, which decay, and biases and norms, which do not."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    return [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": weight_decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]

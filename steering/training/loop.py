"""The training loop that every run shares: AdamW, warm-up, cosine decay, gradient clipping and a progress bar.

It runs on `accelerate`: on a CPU, on a GPU, or on one GPU for each process that `accelerate launch` starts.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from steering.examples import EncodedExample
from steering.training.checkpoint import Checkpoint
from steering.training.data import Batch, StepTotals, collate
from steering.training.objectives import Loss
from steering.training.recipe import OptimiserConfig, Precision, Recipe, RunOptions, StepRecord
from steering.training.scorer import ResponseScorer

LossOf = Callable[[ResponseScorer, Batch, StepTotals], Loss]
"""The loss of a batch, given the model as a scorer and the counts of the batch's whole step."""

_MIXED = {"float32": "no", "bfloat16": "bf16"}


class TrainingDivergedError(RuntimeError):
    """The loss is NaN or infinite; a lower learning rate or a lower weight of forgetting may help."""


class TrainingPausedError(RuntimeError):
    """The run's time is over; it can be resumed from its checkpoint."""

    def __init__(self, step: int, total: int) -> None:
        super().__init__(f"paused after step {step} of {total}")
        self.step, self.total = step, total


def make_accelerator(device: str, precision: Precision) -> Any:
    """An `Accelerator` for the device "auto", "cpu" or "cuda". Raises ValueError for another or an absent device."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(
            f"device must be auto, cpu or cuda, not {device!r} (CUDA_VISIBLE_DEVICES chooses GPUs)"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: there is no GPU")
    # accelerate keeps device and precision in a global, which would bind later runs in this process.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(cpu=device == "cpu", mixed_precision=_MIXED[precision])


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """The factor on the peak rate at `step`: a linear rise over `warmup * total` steps, then half a cosine to 0."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def optimise(
    model: Any,
    groups: Iterable[Sequence[EncodedExample]],
    total: int,
    loss: LossOf,
    recipe: Recipe,
    *,
    accelerator: Any,
    pad_id: int,
    title: str,
    run: str = "",
    options: RunOptions | None = None,
    console: Console | None = None,
) -> tuple[StepRecord, ...]:
    """Train for `total` steps, one for each group of rows, and return a record of each step.

    `run` is the run's fingerprint: only a checkpoint with the same one is resumed. A resumed run needs the same groups
    again, from the first. Raises `TrainingDivergedError` at the first loss that is not finite, `TrainingPausedError`
    when the time is up, and `CheckpointError`.
    """
    options = options or RunOptions()
    checkpoint = Checkpoint(options.checkpoint, run) if options.checkpoint else None
    records = checkpoint.open(resume=options.resume) if checkpoint else []
    begun = time.monotonic()
    scorer = ResponseScorer(model.to(accelerator.device))
    stepper = _Stepper(accelerator, scorer, loss, recipe, pad_id)
    if checkpoint and records:
        checkpoint.load(accelerator)
    model.train()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = console if accelerator.is_main_process else None
    with Progress(*columns, console=shown, disable=shown is None) as progress:
        bar = progress.add_task(title, total=total, completed=len(records))
        for step, rows in zip(
            range(len(records), total), itertools.islice(groups, len(records), None), strict=False
        ):
            records.append(stepper.step(rows, _rate(recipe.optimiser, step, total), f"{title}: step {step}"))
            progress.update(bar, advance=1, description=f"{title}  loss {records[-1].loss:.3f}")
            if checkpoint is None or step + 1 == total:
                continue
            spent = time.monotonic() - begun
            over = stepper.any_process(options.max_seconds is not None and spent > options.max_seconds)
            if over or (options.save_every and (step + 1) % options.save_every == 0):
                checkpoint.save(accelerator, records)
            if over:
                raise TrainingPausedError(step + 1, total)
    model.eval()
    accelerator.free_memory()
    return tuple(records)


def _rate(config: OptimiserConfig, step: int, total: int) -> float:
    return config.learning_rate * learning_rate_factor(step, total, config.warmup)


class _Stepper:
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

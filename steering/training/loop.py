"""The training loop that every run shares: AdamW, warm-up, cosine decay, gradient clipping and progress.

It runs on `accelerate`: on a CPU, on a GPU, or on one GPU for each process that `accelerate launch` starts.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console

from steering.examples import EncodedExample
from steering.training.checkpoint import Checkpoint
from steering.training.held_out import HeldOut, HeldOutMeter
from steering.training.recipe import History, OptimiserConfig, Precision, Recipe, RunOptions, StepRecord
from steering.training.reporting.estimate import Estimate
from steering.training.reporting.progress import RunProgress
from steering.training.scorer import ResponseScorer
from steering.training.stepper import LossOf, Stepper

_MIXED = {"float32": "no", "bfloat16": "bf16"}


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
    estimate: Estimate | None = None,
    held_out: HeldOut | None = None,
    options: RunOptions | None = None,
    console: Console | None = None,
) -> History:
    """Train for `total` steps, one for each group of rows, and return a record of each step.

    `run` is the run's fingerprint: only a checkpoint with the same one is resumed. A resumed run needs the same groups
    again, from the first. `estimate` is shown before the first step. With `held_out` rows the model ends with the
    weights that were best on them. Raises `TrainingDivergedError` at the first loss that is not finite,
    `TrainingPausedError` when the time is up, and `CheckpointError`.
    """
    options = options or RunOptions()
    checkpoint = Checkpoint(options.checkpoint, run) if options.checkpoint else None
    before = checkpoint.open(resume=options.resume) if checkpoint else History(())
    records = list(before.steps)
    scorer = ResponseScorer(model.to(accelerator.device))
    clock = _Clock(options)
    stepper = Stepper(accelerator, scorer, loss, recipe, pad_id)
    rows = -(-recipe.batch_size // recipe.accumulate)
    meter = HeldOutMeter(held_out, scorer, accelerator, rows, pad_id) if held_out else None
    if checkpoint and records:
        checkpoint.load(accelerator)
        if meter:
            meter.resume(before.held_out, checkpoint.best())
    model.train()
    shown = console if accelerator.is_main_process else None
    lowest = meter.lowest if meter else math.inf
    with RunProgress(shown, title, total, len(records), estimate, lowest=lowest) as progress:
        if meter and not records:
            progress.held_out(meter.measure(0))
        for group in itertools.islice(groups, len(records), total):
            step = len(records)
            records.append(stepper.step(group, _rate(recipe.optimiser, step, total), f"{title}: step {step}"))
            progress.step(records[-1].loss, sum(len(row.ids) for row in group))
            if meter and meter.is_due(step + 1, total):
                progress.held_out(meter.measure(step + 1))
            if checkpoint is None or step + 1 == total:
                continue
            over = stepper.any_process(clock.is_over)
            if over or clock.is_save_due(step + 1):
                checkpoint.save(accelerator, _history(records, meter), meter.best if meter else {})
            if over:
                raise TrainingPausedError(step + 1, total)
    if meter:
        meter.restore_best()
    model.eval()
    accelerator.free_memory()
    return _history(records, meter)


def _history(records: Sequence[StepRecord], meter: HeldOutMeter | None) -> History:
    return History(tuple(records), tuple(meter.records if meter else ()))


class _Clock:
    """When a run saves its state, and when its time is over."""

    def __init__(self, options: RunOptions) -> None:
        self._begun, self._options = time.monotonic(), options

    @property
    def is_over(self) -> bool:
        """True when the run has taken longer than it may."""
        most = self._options.max_seconds
        return most is not None and time.monotonic() - self._begun > most

    def is_save_due(self, step: int) -> bool:
        """True if the state is to be saved after `step` steps."""
        return bool(self._options.save_every) and step % self._options.save_every == 0


def _rate(config: OptimiserConfig, step: int, total: int) -> float:
    return config.learning_rate * learning_rate_factor(step, total, config.warmup)

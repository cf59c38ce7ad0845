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
from steering.training.recipe import OptimiserConfig, Precision, Recipe, RunOptions, StepRecord
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
    options: RunOptions | None = None,
    console: Console | None = None,
) -> tuple[StepRecord, ...]:
    """Train for `total` steps, one for each group of rows, and return a record of each step.

    `run` is the run's fingerprint: only a checkpoint with the same one is resumed. A resumed run needs the same groups
    again, from the first. `estimate` is shown before the first step. Raises `TrainingDivergedError` at the first loss
    that is not finite, `TrainingPausedError` when the time is up, and `CheckpointError`.
    """
    options = options or RunOptions()
    checkpoint = Checkpoint(options.checkpoint, run) if options.checkpoint else None
    records = checkpoint.open(resume=options.resume) if checkpoint else []
    begun = time.monotonic()
    stepper = Stepper(accelerator, ResponseScorer(model.to(accelerator.device)), loss, recipe, pad_id)
    if checkpoint and records:
        checkpoint.load(accelerator)
    model.train()
    shown = console if accelerator.is_main_process else None
    with RunProgress(shown, title, total, len(records), estimate) as progress:
        for step, rows in zip(
            range(len(records), total), itertools.islice(groups, len(records), None), strict=False
        ):
            records.append(stepper.step(rows, _rate(recipe.optimiser, step, total), f"{title}: step {step}"))
            progress.step(records[-1].loss, sum(len(row.ids) for row in rows))
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

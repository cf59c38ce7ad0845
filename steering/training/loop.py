"""The optimiser's loop that every training run shares: AdamW, warm-up, cosine decay, clipping, a progress bar."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

BatchT = TypeVar("BatchT")


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """AdamW's settings; `warmup` is the share of the steps over which the learning rate rises."""

    learning_rate: float = 2e-4
    warmup: float = 0.03
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Linear rise over `warmup * total` steps, then half a cosine down to nothing."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a number; a lower learning rate or forgetting weight may help."""


def optimise(
    model: torch.nn.Module,
    batches: Iterable[BatchT],
    total: int,
    loss: Callable[[BatchT], torch.Tensor],
    config: OptimiserConfig,
    *,
    title: str,
    console: Console | None = None,
) -> float:
    """Runs `total` steps over `batches` and returns the mean loss of the last tenth.

    Raises `TrainingDivergedError` at the first loss that is not finite.
    """
    optimiser = torch.optim.AdamW(
        _groups(model, config.weight_decay), lr=config.learning_rate, betas=config.betas, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate_factor(step, total, config.warmup)
    )
    model.train()
    recent: deque[float] = deque(maxlen=max(1, total // 10))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=console is None) as progress:
        bar = progress.add_task(title, total=total)
        for step, batch in zip(range(total), batches, strict=False):
            value = loss(batch)
            number = float(value.detach())
            if not math.isfinite(number):
                raise TrainingDivergedError(f"{title}: the loss at step {step} is {number}")
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimiser.step()
            schedule.step()
            recent.append(number)
            progress.update(bar, advance=1, description=f"{title}  loss {number:.3f}")
    model.eval()
    return sum(recent) / max(1, len(recent))


def _groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases and norms do not."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    return [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": weight_decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]

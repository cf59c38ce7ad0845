"""What a steering model says of continuations of its rows, without the rows taking any notice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.row_input import RowInput
from steering.runner import Runner
from steering.steerer import Steerer, SteeringRow
from steering.transfer import on_device

# Rows of one forward pass over continuations; bounds the logits in memory.
_MAX_ROWS = 128


@dataclass(frozen=True, slots=True)
class Trial:
    """Tokens to feed from position `start` of a row on, and the token whose score each position gives."""

    row: SteeringRow
    start: int
    feed: tuple[int, ...]
    targets: tuple[int, ...]


def score_trials(steerer: Steerer, trials: Sequence[Trial]) -> dict[Trial, list[float]]:
    """The log ratio of every target of every trial."""
    if not trials:
        return {}
    found: list[Tensor] = []
    finite: list[Tensor] = []
    taken: list[tuple[Runner, list[int]]] = []
    try:
        for start in range(0, len(trials), _MAX_ROWS):
            batch = trials[start : start + _MAX_ROWS]
            logits = []
            for number, runner in enumerate(steerer.runners):
                pages: list[int] = []
                taken.append((runner, pages))
                logits.append(_try_out(runner, number, batch, pages))
                finite.append(torch.isfinite(logits[-1].amax()).float()[None])
            ratio = steerer.adapter.shifting.log_ratio(logits)
            targets = on_device([t for trial in batch for t in trial.targets], ratio.device)
            found.append(ratio.gather(1, targets[:, None]).squeeze(1))
        # Read in one piece: the host waits for the device each time.
        values: list[float] = torch.cat([*finite, *found]).tolist()
        for (runner, pages), is_finite in zip(taken, values, strict=False):
            if not is_finite:
                runner.cache.spoil(pages)
        ratios = iter(values[len(taken) :])
        return {trial: [next(ratios) for _ in trial.targets] for trial in trials}
    finally:
        for runner, pages in taken:
            runner.cache.allocator.release(pages)


def _try_out(runner: Runner, number: int, trials: Sequence[Trial], scratch: list[int]) -> Tensor:
    """Logits of every fed token, `[sum(len(feed)), V_steering]`. The rows' own keys and values stay untouched.

    Full pages before the continuation are read where they are; the page in which it starts is copied, since several
    continuations write to it. Pages taken are added to `scratch`, to be released.
    """
    allocator, cache = runner.cache.allocator, runner.cache
    size = allocator.page_size
    inputs: list[RowInput] = []
    sources: list[int] = []
    targets: list[int] = []
    for trial in trials:
        own = trial.row.caches[number].pages
        whole = trial.start // size
        fresh = allocator.allocate(allocator.pages_for(trial.start + len(trial.feed)) - whole)
        scratch.extend(fresh)
        if trial.start % size:
            sources.append(own[whole])
            targets.append(fresh[0])
        inputs.append(RowInput(trial.feed, trial.start, [*own[:whole], *fresh], 0))
    cache.make_room()
    if sources:
        cache.copy_pages(sources, targets)
    return runner.forward(inputs)

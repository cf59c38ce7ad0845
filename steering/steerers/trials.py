"""What a steering model says of continuations of its rows, without the rows taking any notice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.device.transfer import on_device
from steering.model.row_input import RowInput
from steering.model.runner import Runner
from steering.steerers.steerer import Steerer, SteeringRow

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
    """The log ratio of every target of every trial. What several trials feed alike is read once."""
    if not trials:
        return {}
    sharing = _sharing(trials)
    passes = list(sharing)
    found: list[Tensor] = []
    finite: list[Tensor] = []
    taken: list[tuple[Runner, list[int]]] = []
    try:
        for start in range(0, len(passes), _MAX_ROWS):
            batch = passes[start : start + _MAX_ROWS]
            logits = []
            for number, runner in enumerate(steerer.runners):
                pages: list[int] = []
                taken.append((runner, pages))
                logits.append(_try_out(runner, number, batch, pages))
                finite.append(torch.isfinite(logits[-1].amax()).float()[None])
            ratio = steerer.adapter.shifting.log_ratio(logits)
            wanted = on_device(_wanted(batch, sharing), ratio.device)
            found.append(ratio[wanted[:, 0], wanted[:, 1]])
        # Read in one piece: the host waits for the device each time.
        values: list[float] = torch.cat([*finite, *found]).tolist()
        for (runner, pages), is_finite in zip(taken, values, strict=False):
            if not is_finite:
                runner.cache.invalidate(pages)
        ratios = iter(values[len(taken) :])
        return {trial: [next(ratios) for _ in trial.targets] for each in passes for trial in sharing[each]}
    finally:
        for runner, pages in taken:
            runner.cache.allocator.release(pages)


def _sharing(trials: Sequence[Trial]) -> dict[Trial, list[Trial]]:
    """The trials that must be read, and those that each of them answers: all that feed a beginning of what it feeds."""
    found: dict[Trial, list[Trial]] = {}
    last: Trial | None = None
    # Sorted, a beginning stands right before all that begins with it.
    for trial in sorted(trials, key=lambda each: (id(each.row), each.start, each.feed), reverse=True):
        if last is None or not _begins(trial, last):
            last = trial
            found[last] = []
        found[last].append(trial)
    return found


def _begins(trial: Trial, other: Trial) -> bool:
    same = trial.row is other.row and trial.start == other.start
    return same and other.feed[: len(trial.feed)] == trial.feed


def _wanted(passes: Sequence[Trial], sharing: dict[Trial, list[Trial]]) -> list[tuple[int, int]]:
    """(position, target) of all that these passes answer, positions counted over all that is fed."""
    found: list[tuple[int, int]] = []
    start = 0
    for each in passes:
        for trial in sharing[each]:
            found += enumerate(trial.targets, start)
        start += len(each.feed)
    return found


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

"""Scores continuations of a sequence by a steering model, without changing the sequence's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.device.transfer import on_device
from steering.model.row_input import RowInput
from steering.model.runner import Runner
from steering.steerers.state import SteererState
from steering.steerers.steerer import Steerer

# Rows of one forward pass over continuations. Bounds the memory that their logits take.
_MAX_ROWS = 128


@dataclass(frozen=True, slots=True)
class Trial:
    """Tokens to feed from position `start` on, and the target token to score at each of them."""

    state: SteererState
    start: int
    feed: tuple[int, ...]
    targets: tuple[int, ...]


def score_trials(steerer: Steerer, trials: Sequence[Trial]) -> dict[Trial, list[float]]:
    """The log ratio of each target of each trial. A feed that several trials share is read once."""
    if not trials:
        return {}
    sharing = _sharing(trials)
    passes = list(sharing)
    found: list[Tensor] = []
    finite: list[Tensor] = []
    taken: list[tuple[Runner, list[int]]] = []
    spoiled = taken  # until the logits are known to be finite
    try:
        for start in range(0, len(passes), _MAX_ROWS):
            batch = passes[start : start + _MAX_ROWS]
            logits = []
            for number, runner in enumerate(steerer.runners):
                pages: list[int] = []
                taken.append((runner, pages))
                logits.append(_try_out(runner, number, batch, pages))
                finite.append(torch.isfinite(logits[-1].amax()).float()[None])
            ratio = steerer.adapter.rule.log_ratio(logits)
            wanted = on_device(_wanted(batch, sharing), ratio.device)
            found.append(ratio[wanted[:, 0], wanted[:, 1]])
        # Read in one piece, because the host waits for the device at each read.
        values: list[float] = torch.cat([*finite, *found]).tolist()
        spoiled = [each for each, is_finite in zip(taken, values, strict=False) if not is_finite]
        ratios = iter(values[len(taken) :])
        return {trial: [next(ratios) for _ in trial.targets] for each in passes for trial in sharing[each]}
    finally:
        for runner, pages in spoiled:
            runner.cache.invalidate(pages)
        for runner, pages in taken:
            runner.cache.allocator.release(pages)


def _sharing(trials: Sequence[Trial]) -> dict[Trial, list[Trial]]:
    """The trials that must be read, each with the trials that it answers: those whose feed is a prefix of its own."""
    found: dict[Trial, list[Trial]] = {}
    last: Trial | None = None
    # In sorted order a prefix stands right before everything that begins with it.
    for trial in sorted(trials, key=lambda each: (id(each.state), each.start, each.feed), reverse=True):
        if last is None or not _is_prefix(trial, last):
            last = trial
            found[last] = []
        found[last].append(trial)
    return found


def _is_prefix(trial: Trial, other: Trial) -> bool:
    same = trial.state is other.state and trial.start == other.start
    return same and other.feed[: len(trial.feed)] == trial.feed


def _wanted(passes: Sequence[Trial], sharing: dict[Trial, list[Trial]]) -> list[tuple[int, int]]:
    """The (position, target) pairs that these trials answer. Positions count over all fed tokens."""
    found: list[tuple[int, int]] = []
    start = 0
    for each in passes:
        for trial in sharing[each]:
            found += enumerate(trial.targets, start)
        start += len(each.feed)
    return found


def _try_out(runner: Runner, number: int, trials: Sequence[Trial], fresh: list[int]) -> Tensor:
    """Logits of every fed token, `[sum(len(feed)), V_steering]`. Adds the pages that it takes to `fresh`.

    Whole pages before a continuation are read where they are. The page in which it starts is copied, because several
    continuations write to it.
    """
    inputs: list[RowInput] = []
    copies: list[tuple[int, int]] = []
    for trial in trials:
        fork = trial.state.caches[number].fork(trial.start, len(trial.feed))
        fresh.extend(fork.fresh)
        if fork.copied:
            copies.append(fork.copied)
        inputs.append(RowInput(trial.feed, trial.start, fork.pages, 0))
    trials[0].state.caches[number].copy_pages(copies)
    return runner.forward(inputs)

"""The bridge `rescore` as `benchmarks.tax` measures it: counted, and on request with every candidate on trial."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from steering.adapters.shift import Shift
from steering.bridges.rescore import PLAUSIBLE, rescore
from steering.bridges.table import registered
from steering.steerers.history_kv import Fork, HistoryKV
from steering.steerers.state import SteererState
from steering.steerers.steerer import Steerer

COUNTED = "counted rescore"
"""The name of the counting bridge in requests."""


class CountingRescore:
    """The bridge `rescore`, with the number of rows so far on which it spent a pass of the steering model (`rows`)."""

    def __init__(self, plausible: float = PLAUSIBLE) -> None:
        self.rows = 0
        self._plausible = plausible

    def __call__(
        self,
        steerer: Steerer,
        states: Sequence[SteererState],
        logits: Sequence[Tensor],
        base: Tensor,
        alphas: Tensor,
    ) -> Shift:
        """The shift of `rescore`. A row counts where its keys and values are forked, as each trial does."""
        watched = [[_WatchedKV(cache) for cache in state.caches] for state in states]
        copies = []
        for state, caches in zip(states, watched, strict=True):
            copies.append(copy.copy(state))
            copies[-1].caches = list(caches)
        shift = rescore(steerer, copies, logits, base, alphas, plausible=self._plausible)
        self.rows += sum(any(cache.forked for cache in caches) for caches in watched)
        return shift


class _WatchedKV(HistoryKV):
    """The pages of another `HistoryKV`. Notes whether a continuation was forked from them."""

    def __init__(self, watched: HistoryKV) -> None:
        super().__init__(watched.runner)
        self.pages = watched.pages
        self.forked = False

    def fork(self, start: int, count: int) -> Fork:
        """Fork as usual, and note it."""
        self.forked = True
        return super().fork(start, count)


@contextmanager
def counting(*, everything: bool = False) -> Iterator[CountingRescore]:
    """Let requests name the counting bridge while the block runs. `everything`: every candidate goes on trial."""
    bridge = CountingRescore(0.0 if everything else PLAUSIBLE)
    with registered(COUNTED, bridge):
        yield bridge

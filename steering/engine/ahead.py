"""The base's pass over tokens that the host has not read yet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from steering.device.transfer import on_device
from steering.engine.sequence import Sequence as RunningSequence
from steering.model.kv_cache import KVCache


class AheadPass:
    """The rows of a pass that has been queued for the next step, some of which may turn out to be in vain.

    logits: float32 `[sequences, V]`, after the token that each sequence drew last.
    """

    def __init__(self, sequences: Sequence[RunningSequence], logits: Tensor, cache: KVCache) -> None:
        self._logits = logits
        self._cache = cache
        self._rows = {sequence: row for row, sequence in enumerate(sequences)}

    @property
    def sequences(self) -> list[RunningSequence]:
        """Those that have not ended since."""
        return list(self._rows)

    @property
    def logits(self) -> Tensor:
        """Theirs."""
        if len(self._rows) == len(self._logits):
            return self._logits
        return self._logits.index_select(0, on_device(list(self._rows.values()), self._logits.device))

    def drop(self, sequence: RunningSequence) -> None:
        """A sequence has ended, and has its pages still: nothing may be found there of the token after its last one."""
        if self._rows.pop(sequence, None) is not None:
            # It was never looked at. If it is no number, a masked position times it is none either.
            self._cache.clear([self._cache.allocator.slot(sequence.pages, sequence.computed)])

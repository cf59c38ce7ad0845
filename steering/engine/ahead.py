"""The base's pass for the next step, queued before the host has read this step's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.device.transfer import on_device
from steering.engine.ending import EndRules
from steering.engine.sequence import SequenceState
from steering.model.kv_cache import KVCache


def going_on(
    sequences: Sequence[SequenceState], tokens: Tensor, ends: EndRules
) -> tuple[Sequence[SequenceState], Tensor]:
    """Keep the sequences that do not end with the token just drawn, whichever it is. tokens: int64 `[sequences]`."""
    rows = [row for row, sequence in enumerate(sequences) if ends.has_room(sequence)]
    if len(rows) == len(sequences):
        return sequences, tokens
    return [sequences[row] for row in rows], tokens.index_select(
        0, on_device(rows, tokens.device, torch.long)
    )


class AheadPass:
    """A pass that has been queued for the next step. Sequences that end meanwhile are dropped from it.

    logits: float32 `[sequences, V]`, after the token that each sequence drew last.
    """

    def __init__(self, sequences: Sequence[SequenceState], logits: Tensor, cache: KVCache) -> None:
        self._logits = logits
        self._cache = cache
        self._rows = {sequence: row for row, sequence in enumerate(sequences)}

    @property
    def sequences(self) -> list[SequenceState]:
        """The sequences that have not ended since."""
        return list(self._rows)

    @property
    def logits(self) -> Tensor:
        """The logits of these sequences."""
        if len(self._rows) == len(self._logits):
            return self._logits
        return self._logits.index_select(0, on_device(list(self._rows.values()), self._logits.device))

    def without(self, sequence: SequenceState) -> AheadPass | None:
        """Drop a sequence that has ended; None where none is left.

        Its pages must not show the token computed after its last one.
        """
        if self._rows.pop(sequence, None) is not None:
            # The keys and values were never checked, and a masked NaN would still spoil a product.
            self._cache.clear([self._cache.allocator.slot(sequence.pages, sequence.computed)])
        return self if self._rows else None

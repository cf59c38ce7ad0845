"""One model and its pool: packed rows in, logits out. The base and every steering model use the same runner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.device.capture import Capture
from steering.device.transfer import on_device
from steering.model.attention import AttentionPlan, RowGroup
from steering.model.captured_passes import CapturedPasses
from steering.model.kv_cache import KVCache
from steering.model.loaded_model import LoadedModel
from steering.model.row_input import RowInput, wanted_tokens
from steering.model.varlen_attention import VarlenRows

# Rows with up to this many new tokens share one padded rectangle; a longer row has its own.
SHORT_ROW = 8


class Runner:
    """Runs one loaded model on packed rows over its own paged pool.

    `capture`: captures passes over short rows where that pays; `steering.model.captured_passes` says how.
    """

    def __init__(self, loaded: LoadedModel, cache: KVCache, capture: Capture | None = None) -> None:
        self.loaded = loaded
        self.cache = cache
        self._captured = None if capture is None else CapturedPasses(loaded, cache, capture)

    @torch.inference_mode()
    def forward(self, rows: Sequence[RowInput], device_tokens: Tensor | None = None) -> Tensor:
        """Compute the rows' new tokens, store their keys and values, and return the wanted logits.

        `device_tokens`: all rows' tokens, int64 `[tokens]`, where they are on the device already; the tokens in `rows`
        then only count. Returns float32 `[wanted tokens, V]`, row after row in the order given.
        """
        if self._captured is not None and all(len(row.tokens) <= SHORT_ROW for row in rows):
            logits = self._captured.forward(rows, device_tokens)
            if logits is not None:
                return logits
        device = self.loaded.device
        tokens = [token for row in rows for token in row.tokens]
        positions = [row.start + i for row in rows for i in range(len(row.tokens))]
        wanted = wanted_tokens(rows)
        logits = self.loaded.forward(
            on_device(tokens, device) if device_tokens is None else device_tokens,
            on_device(positions, device),
            on_device(wanted or [len(tokens) - 1], device),
            self._plan(rows),
        )
        return logits[: len(wanted)].float()

    def _plan(self, rows: Sequence[RowInput]) -> AttentionPlan:
        slot = self.cache.allocator.slot
        slots: list[int] = []
        offsets: list[int] = []
        for row in rows:
            offsets.append(len(slots))
            slots.extend(slot(row.pages, p) for p in range(row.start, row.start + len(row.tokens)))
        if self.loaded.varlen:
            return AttentionPlan(
                self.cache,
                on_device(slots, self.loaded.device),
                [],
                is_uniform=False,
                varlen=self._varlen(rows),
            )
        members: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            length = len(row.tokens)
            # Decodes together, short rows together, every long row alone (a key of its own).
            key = 0 if length == 1 else 1 if length <= SHORT_ROW else 2 + index
            members.setdefault(key, []).append(index)
        groups = [self._group([rows[i] for i in m], [offsets[i] for i in m]) for m in members.values()]
        return AttentionPlan(
            cache=self.cache,
            slots=on_device(slots, self.loaded.device),
            groups=groups,
            # A group keeps the order of the batch, so a single unpadded group is the batch itself.
            is_uniform=len(groups) == 1 and groups[0].unpadded is None,
        )

    def _group(self, rows: Sequence[RowInput], offsets: Sequence[int]) -> RowGroup:
        device = self.loaded.device
        counts = [len(row.tokens) for row in rows]
        width = max(counts)
        # A row that is shorter than the rectangle is padded with its first query.
        within = [[step if step < count else 0 for step in range(width)] for count in counts]
        unpadded = [number * width + step for number, count in enumerate(counts) for step in range(count)]
        return RowGroup(
            queries=on_device(
                [[o + w for w in line] for o, line in zip(offsets, within, strict=True)], device
            ),
            positions=on_device(
                [[row.start + w for w in line] for row, line in zip(rows, within, strict=True)], device
            ),
            unpadded=None if len(unpadded) == width * len(rows) else on_device(unpadded, device),
            page_tables=self._page_tables(rows),
        )

    def _varlen(self, rows: Sequence[RowInput]) -> VarlenRows:
        counts = [len(row.tokens) for row in rows]
        lengths = [row.start + count for row, count in zip(rows, counts, strict=True)]
        return VarlenRows.of(counts, lengths, self._page_tables(rows), self.cache.allocator.page_size)

    def _page_tables(self, rows: Sequence[RowInput]) -> Tensor:
        """Each row's pages, int64 `[rows, pages]`.

        A row is padded with its own first page: a masked position still takes part in a product, and another row's
        page may hold NaN.
        """
        used = [self.cache.allocator.pages_for(row.start + len(row.tokens)) for row in rows]
        longest = max(used)
        tables = [
            [*row.pages[:count], *([row.pages[0]] * (longest - count))]
            for row, count in zip(rows, used, strict=True)
        ]
        return on_device(tables, self.loaded.device)

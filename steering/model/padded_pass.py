"""A pass of one fixed size on static buffers, as a CUDA graph needs it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steering.model.attention import AttentionPlan
from steering.model.kv_cache import KVCache
from steering.model.loaded_model import LoadedModel
from steering.model.row_input import RowInput


class PaddedPass:
    """A pass over `tokens` tokens with `pages` pages each: `fill` writes its buffers, `run` computes from them."""

    def __init__(self, loaded: LoadedModel, cache: KVCache, tokens: int, pages: int) -> None:
        self._loaded = loaded
        self._cache = cache
        # Tokens, positions and slots, then each token's page table: one buffer, so that one copy moves all of them.
        self._host: NDArray[np.int64] = np.zeros((3 + pages) * tokens, dtype=np.int64)
        self._host_columns = self._host[: 3 * tokens].reshape(3, tokens)
        self._host_tables = self._host[3 * tokens :].reshape(tokens, pages)
        self._filled: list[tuple[Sequence[int] | None, int]] = [(None, 0)] * tokens
        self._used = 0
        self._pad(0, tokens)
        self._inputs = torch.from_numpy(self._host).to(loaded.device)
        self._tokens, self._positions, self._slots = self._inputs[: 3 * tokens].view(3, tokens).unbind()
        self._tables = self._inputs[3 * tokens :].view(tokens, pages)
        self._wanted = torch.arange(tokens, device=loaded.device)

    def fill(self, rows: Sequence[RowInput], device_tokens: Tensor | None) -> None:
        """Write the inputs of the next `run`.

        `device_tokens`: the tokens, int64 `[tokens]`, where they are on the device already.
        """
        allocator = self._cache.allocator
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for row in rows:
            for offset, token in enumerate(row.tokens):
                position = row.start + offset
                self._fill_table(len(tokens), row.pages, allocator.pages_for(position + 1))
                tokens.append(token)
                positions.append(position)
                slots.append(allocator.slot(row.pages, position))
        count = len(tokens)
        self._host_columns[:, :count] = tokens, positions, slots
        self._pad(count, self._used)
        self._used = count
        self._inputs.copy_(_pinned(self._host, self._inputs.device), non_blocking=True)
        if device_tokens is not None:
            self._tokens[:count].copy_(device_tokens)

    def run(self) -> Tensor:
        """Compute on the buffers as they are; returns logits `[tokens, V]` in the model's dtype."""
        plan = AttentionPlan.of_single_tokens(
            self._cache, self._positions, self._slots, self._tables, varlen=self._loaded.varlen
        )
        return self._loaded.forward(self._tokens, self._positions, self._wanted, plan)

    def _pad(self, start: int, stop: int) -> None:
        """Make the tokens from `start` to `stop` padding, whose keys and values go to the padding page."""
        page = self._cache.padding_page
        self._host_columns[:, start:stop] = [[0], [0], [page * self._cache.allocator.page_size]]
        self._host_tables[start:stop] = page
        self._filled[start:stop] = [(None, 0)] * (stop - start)

    def _fill_table(self, index: int, pages: Sequence[int], count: int) -> None:
        """Write one token's page table: `count` pages, then the row's first page, as in every pass of a `Runner`."""
        known, known_count = self._filled[index]
        # A row's list of pages only grows, and another row has another list.
        if known is pages and known_count == count:
            return
        table = self._host_tables[index]
        table[:count] = pages[:count]
        table[count:] = pages[0]
        self._filled[index] = (pages, count)


def _pinned(host: NDArray[np.int64], device: torch.device) -> Tensor:
    # For a GPU a copy, which it reads later: the host's buffer may be filled for the next pass before that.
    values = torch.from_numpy(host)
    return values if device.type == "cpu" else values.pin_memory()

"""Passes over a few tokens, recorded once for each size and then repeated without Python.

Decoding runs some ten small operations a layer, and on a GPU it takes longer to call them than to do them. A recording
(a CUDA graph) repeats them on the same memory in one call. So such a pass reads fixed buffers, which are filled before
each replay, and has few sizes: what there is, is padded to the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steering.device.recording import Record, Replay
from steering.device.transfer import on_device
from steering.model.attention import AttentionPlan
from steering.model.kv_cache import KVCache
from steering.model.loaded_model import ROUNDING, LoadedModel
from steering.model.row_input import RowInput, wanted_tokens

logger = logging.getLogger(__name__)

# A larger pass is long enough to be called operation by operation, and its recording would hold much memory: more
# tokens, or more positions that attention gathers for them.
MOST_TOKENS = 128
MOST_POSITIONS = 1 << 16
MOST_RECORDINGS = 96


class RecordedPasses:
    """One model's recorded passes over its pool. Each new token is a row of its own, with its row's pages.

    What cannot be recorded (a model that looks at its numbers between its layers) is not tried again.
    """

    def __init__(self, loaded: LoadedModel, cache: KVCache, record: Record) -> None:
        self._loaded = loaded
        self._cache = cache
        self._record: Record | None = record
        self._made: dict[tuple[int, int], tuple[_BufferedPass, Replay]] = {}
        self._generation = cache.generation
        self._output: Tensor | None = None
        self._most = MOST_RECORDINGS

    def forward(self, rows: Sequence[RowInput], given: Tensor | None = None) -> Tensor | None:
        """See `Runner.forward`; None where this pass must be run in the ordinary way."""
        count = sum(len(row.tokens) for row in rows)
        record = self._record
        # A pool that is not made yet is made by a pass.
        if record is None or count > MOST_TOKENS or not self._cache.generation:
            return None
        self._cache.make_room()
        if self._generation != self._cache.generation:
            # The pool has moved in memory, and the recordings write where it was.
            self._made.clear()
            self._generation = self._cache.generation
        allocator = self._cache.allocator
        longest = max(allocator.pages_for(row.start + len(row.tokens)) for row in rows)
        shape = (_tokens_of(count), _pages_of(longest))
        if not self._loaded.varlen and shape[0] * shape[1] * allocator.page_size > MOST_POSITIONS:
            return None
        made = self._made.get(shape)
        if made is None:
            if len(self._made) >= self._most:
                return None
            made = self._make(shape, rows, given, record, count)
            if made is None:
                return None
            self._made[shape] = made
        else:
            made[0].fill(rows, given)
        logits = made[1]()
        wanted = wanted_tokens(rows)
        if len(wanted) < count:
            return logits.index_select(0, on_device(wanted, logits.device, torch.long)).float()
        # A copy in any case: the next replay writes where this one did.
        return logits[:count].to(torch.float32, copy=True)

    def _make(
        self,
        shape: tuple[int, int],
        rows: Sequence[RowInput],
        given: Tensor | None,
        record: Record,
        count: int,
    ) -> tuple[_BufferedPass, Replay] | None:
        """A pass of this shape, filled in, and its recording; None where there can be none."""
        try:
            buffered = _BufferedPass(self._loaded, self._cache, *shape)
            buffered.fill(rows, given)
            return buffered, self._try_out(buffered, record, count)
        except (RuntimeError, NotImplementedError) as error:
            # The end of a capture may fail in turn.
            if isinstance(error, torch.OutOfMemoryError) or isinstance(
                error.__context__, torch.OutOfMemoryError
            ):
                # The model is not at fault. Those that are made already hold their memory, and go on being used.
                self._most = len(self._made)
                logger.warning(
                    "%s: no memory to record more of its passes, which costs speed", self._loaded.path
                )
            else:
                self._give_up(str(error).strip().partition("\n")[0])
            return None

    def _try_out(self, buffered: _BufferedPass, record: Record, count: int) -> Replay:
        """Record what has been filled in. Raises RuntimeError where a replay does not give what the pass gave."""
        plain = buffered.run()
        if self._output is None:
            # One for all recordings: each would keep its own.
            self._output = plain.new_empty(MOST_TOKENS, plain.shape[1])
        output = self._output[: len(plain)]
        replay = record(lambda: output.copy_(buffered.run()))
        expected, got = plain[:count].float(), replay()[:count].float()
        # What is no number is for those to judge who read the scores.
        finite = torch.isfinite(expected)
        difference = float(torch.where(finite, got - expected, 0.0).abs().max())
        largest = float(torch.where(finite, expected, 0.0).abs().max())
        if not difference <= ROUNDING.get(self._loaded.dtype, 1e-1) * max(1.0, largest):
            raise RuntimeError(f"a replay's scores differ by {difference:.3g}")
        return replay

    def _give_up(self, reason: str) -> None:
        logger.warning("%s: its passes are not recorded, which costs speed: %s", self._loaded.path, reason)
        self._record = None
        self._made.clear()


class _BufferedPass:
    """A pass of one shape: its buffers, which `fill` writes, and what computes `[tokens, V]` logits from them."""

    def __init__(self, loaded: LoadedModel, cache: KVCache, tokens: int, pages: int) -> None:
        self._loaded = loaded
        self._cache = cache
        # Tokens, positions, slots, and then each one's pages: one piece, so that it is one copy to the device.
        self._host: NDArray[np.int64] = np.zeros((3 + pages) * tokens, dtype=np.int64)
        self._host_columns = self._host[: 3 * tokens].reshape(3, tokens)
        self._host_tables = self._host[3 * tokens :].reshape(tokens, pages)
        self._filled: list[tuple[Sequence[int] | None, int]] = [(None, 0)] * tokens
        self._used = 0
        self._clear(0, tokens)
        self._inputs = torch.from_numpy(self._host).to(loaded.device)
        self._tokens, self._positions, self._slots = self._inputs[: 3 * tokens].view(3, tokens).unbind()
        self._tables = self._inputs[3 * tokens :].view(tokens, pages)
        self._wanted = torch.arange(tokens, device=loaded.device)

    def fill(self, rows: Sequence[RowInput], given: Tensor | None) -> None:
        """Write what the next pass reads. `given`: the tokens, int64 `[tokens]`, where the device has them already."""
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
        self._clear(count, self._used)
        self._used = count
        self._inputs.copy_(_pinned(self._host, self._inputs.device), non_blocking=True)
        if given is not None:
            self._tokens[:count].copy_(given)

    def run(self) -> Tensor:
        """The pass itself, on the buffers as they are; logits `[tokens, V]` in the model's dtype."""
        plan = AttentionPlan.of_single_tokens(
            self._cache, self._positions, self._slots, self._tables, varlen=self._loaded.varlen
        )
        return self._loaded.forward(self._tokens, self._positions, self._wanted, plan)

    def _clear(self, start: int, stop: int) -> None:
        """Let places hold no token: what they compute goes to nobody's page."""
        padding = self._cache.padding_page
        self._host_columns[:, start:stop] = [[0], [0], [padding * self._cache.allocator.page_size]]
        self._host_tables[start:stop] = padding
        self._filled[start:stop] = [(None, 0)] * (stop - start)

    def _fill_table(self, place: int, pages: Sequence[int], count: int) -> None:
        """The pages of one token: its row's own first one where it has fewer, as in every pass (`Runner`)."""
        known, known_count = self._filled[place]
        # A row's list of pages only ever grows, and another row has another list.
        if known is pages and known_count == count:
            return
        table = self._host_tables[place]
        table[:count] = pages[:count]
        table[count:] = pages[0]
        self._filled[place] = (pages, count)


def _pinned(host: NDArray[np.int64], device: torch.device) -> Tensor:
    # A copy where the device reads it later: the next pass may be filled in before that.
    values = torch.from_numpy(host)
    return values if device.type == "cpu" else values.pin_memory()


def _tokens_of(count: int) -> int:
    """The next size: powers of two, and from 16 on multiples of 16, so that little is padded where it costs."""
    return 1 << (count - 1).bit_length() if count <= 16 else -(-count // 16) * 16


def _pages_of(count: int) -> int:
    """The next power of two, from 4 on."""
    return max(4, 1 << (count - 1).bit_length())

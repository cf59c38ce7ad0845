"""Passes over a few tokens, captured once for each size and then replayed without Python.

Decoding runs about ten small operations a layer, and on a GPU calling them takes longer than computing them. A CUDA
graph captures the operations once and replays them on the same memory in one call. A captured pass therefore reads
static buffers, which are filled before each replay, and exists in few sizes, to which its inputs are padded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from steering.device.capture import Capture, Replay
from steering.device.transfer import on_device
from steering.model.kv_cache import KVCache
from steering.model.loaded_model import LoadedModel, logit_tolerance
from steering.model.padded_pass import PaddedPass
from steering.model.row_input import RowInput, wanted_tokens

logger = logging.getLogger(__name__)

# A pass over more tokens, or one whose attention gathers more positions, runs long enough for its operations to be
# called one by one, and its graph would hold much memory.
MAX_TOKENS = 128
MAX_POSITIONS = 1 << 16
MAX_PASSES = 96


class CapturedPasses:
    """One model's captured passes over its pool. Each new token is a row of its own, with the pages of its row.

    A model whose passes cannot be captured (one that reads values on the host between its layers) is not tried again.
    """

    def __init__(self, loaded: LoadedModel, cache: KVCache, capture: Capture) -> None:
        self._loaded = loaded
        self._cache = cache
        self._capture: Capture | None = capture
        self._passes: dict[tuple[int, int], tuple[PaddedPass, Replay]] = {}
        self._generation = cache.generation
        self._output: Tensor | None = None
        self._max_passes = MAX_PASSES

    def forward(self, rows: Sequence[RowInput], device_tokens: Tensor | None = None) -> Tensor | None:
        """Compute the rows as `Runner.forward` does; returns None where the pass must run without a capture."""
        count = sum(len(row.tokens) for row in rows)
        capture = self._capture
        # An ordinary pass creates the pool first.
        if capture is None or count > MAX_TOKENS or not self._cache.generation:
            return None
        self._cache.make_room()
        if self._generation != self._cache.generation:
            # The pool has moved in memory, and the captured passes write to its old place.
            self._passes.clear()
            self._generation = self._cache.generation
        size = self._padded_size(rows, count)
        if size is None:
            return None
        if size in self._passes:
            padded, replay = self._passes[size]
            padded.fill(rows, device_tokens)
        else:
            if len(self._passes) >= self._max_passes:
                return None
            captured = self._capture_pass(size, rows, device_tokens, capture, count)
            if captured is None:
                return None
            self._passes[size] = captured
            _, replay = captured
        logits = replay()
        wanted = wanted_tokens(rows)
        if len(wanted) < count:
            return logits.index_select(0, on_device(wanted, logits.device, torch.long)).float()
        # Always a copy: the next replay writes to the same memory.
        return logits[:count].to(torch.float32, copy=True)

    def _padded_size(self, rows: Sequence[RowInput], count: int) -> tuple[int, int] | None:
        """The number of tokens, and of pages per token, to which the rows are padded; None where that is too large."""
        allocator = self._cache.allocator
        longest = max(allocator.pages_for(row.start + len(row.tokens)) for row in rows)
        tokens, pages = _padded_tokens(count), _padded_pages(longest)
        if not self._loaded.varlen and tokens * pages * allocator.page_size > MAX_POSITIONS:
            return None
        return tokens, pages

    def _capture_pass(
        self,
        size: tuple[int, int],
        rows: Sequence[RowInput],
        device_tokens: Tensor | None,
        capture: Capture,
        count: int,
    ) -> tuple[PaddedPass, Replay] | None:
        """Build, fill and capture a pass of this size; returns None where the capture fails."""
        try:
            padded = PaddedPass(self._loaded, self._cache, *size)
            padded.fill(rows, device_tokens)
            return padded, self._checked_replay(padded, capture, count)
        except (RuntimeError, NotImplementedError) as error:
            # Ending a capture after an error may raise another error, whose context is the first.
            if isinstance(error, torch.OutOfMemoryError) or isinstance(
                error.__context__, torch.OutOfMemoryError
            ):
                # The model is not at fault. The passes captured so far hold their memory already and stay in use.
                self._max_passes = len(self._passes)
                logger.warning(
                    "%s: no memory to capture more of its passes, which costs speed", self._loaded.path
                )
            else:
                self._give_up(str(error).strip().partition("\n")[0])
            return None

    def _checked_replay(self, padded: PaddedPass, capture: Capture, count: int) -> Replay:
        """Capture a filled pass. Raises RuntimeError where a replay's logits differ from the pass's own."""
        plain = padded.run()
        if self._output is None:
            # One output for all captured passes; otherwise each would hold memory for its own.
            self._output = plain.new_empty(MAX_TOKENS, plain.shape[1])
        output = self._output[: len(plain)]
        replay = capture(lambda: output.copy_(padded.run()))
        expected, got = plain[:count].float(), replay()[:count].float()
        # The reader of the scores handles NaN and infinities; the comparison leaves them out.
        finite = torch.isfinite(expected)
        difference = float(torch.where(finite, got - expected, 0.0).abs().max())
        largest = float(torch.where(finite, expected, 0.0).abs().max())
        if not difference <= logit_tolerance(self._loaded.dtype, largest):
            raise RuntimeError(f"a replay's scores differ by {difference:.3g}")
        return replay

    def _give_up(self, reason: str) -> None:
        logger.warning("%s: its passes are not captured, which costs speed: %s", self._loaded.path, reason)
        self._capture = None
        self._passes.clear()


def _padded_tokens(count: int) -> int:
    """The next power of two up to 16, then the next multiple of 16, so that little is padded where padding costs."""
    return 1 << (count - 1).bit_length() if count <= 16 else -(-count // 16) * 16


def _padded_pages(count: int) -> int:
    """The next power of two, at least 4."""
    return max(4, 1 << (count - 1).bit_length())

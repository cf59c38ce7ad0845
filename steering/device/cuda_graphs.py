"""Recording passes as CUDA graphs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

# A process captures one graph at a time, and nobody may wait for the whole device meanwhile: every base has a thread.
_CAPTURING = threading.Lock()


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Python's collector may destroy another graph, which a capture on the same thread does not survive."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class CudaGraphs:
    """Records passes that are never replayed at the same time: they share their memory.

    cuBLAS has one workspace a stream, which graphs keep using wherever they are replayed. So what may be replayed at
    the same time needs a recorder of its own, with its own stream for capturing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._anchor: Callable[[], Tensor] | None = None
        self._left: list[object] = []

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Capture what `run` queues. It has run before: libraries set themselves up at their first call."""
        if self._anchor is None:
            # Never replayed: it keeps the memory, and the workspace in it, when all other graphs are gone.
            one = torch.ones(1, device=self._device)
            self._anchor = self._capture(lambda: one + one)
        return self._capture(run)

    def _capture(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream(self._device)
        with _CAPTURING, _nothing_collected():
            try:
                # Other threads go on using the GPU meanwhile: an adapter may be loading.
                with torch.cuda.graph(
                    graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
                ):
                    result = run()
            except BaseException:
                # A capture that fails leaves its stream current, and the allocator in its pool.
                torch.cuda.set_stream(before)
                with suppress(RuntimeError, AttributeError):
                    torch._C._cuda_endAllocateToPool(before.device_index, self._pool)
                # The allocator of pinned memory may be left in it for good, and asks the graph what is its own. So both
                # stay, and what was captured before keeps its anchor; what comes later has a pool of its own.
                self._left += [graph, self._anchor]
                self._anchor = None
                self._pool = torch.cuda.graph_pool_handle()
                raise

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

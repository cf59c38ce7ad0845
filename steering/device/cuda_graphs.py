"""Capturing passes as CUDA graphs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from steering.device.capture import Replay

# Every base has a thread, but a process captures one graph at a time, and no thread may wait for the whole device
# during a capture.
_CAPTURING = threading.Lock()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause Python's garbage collector: it may destroy another graph, which ends a capture on the same thread."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class CudaGraphs:
    """Captures passes that are never replayed at the same time, so that they can share memory.

    cuBLAS has one workspace per stream, and a graph keeps using the one of the stream that captured it, wherever it is
    replayed. Passes that may be replayed at the same time therefore need separate instances, with a stream each.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._anchor: Replay | None = None
        self._kept_alive: list[object] = []

    def __call__(self, run: Callable[[], Tensor]) -> Replay:
        """Capture the work that `run` queues; returns its replay.

        `run` must have run before, because libraries initialise themselves at their first call, which a capture does
        not allow. Raises whatever `run` raises, and RuntimeError where its work cannot be captured.
        """
        if self._anchor is None:
            # The anchor is never replayed. It keeps the memory and its workspace when all other graphs are gone.
            one = torch.ones(1, device=self._device)
            self._anchor = self._capture(lambda: one + one)
        return self._capture(run)

    def _capture(self, run: Callable[[], Tensor]) -> Replay:
        graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream(self._device)
        with _CAPTURING, _no_garbage_collection():
            try:
                # Other threads may use the GPU during the capture, to load an adapter for example.
                with torch.cuda.graph(
                    graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
                ):
                    result = run()
            except BaseException:
                # A failed capture leaves its stream current, and the allocator in its pool.
                torch.cuda.set_stream(before)
                with suppress(RuntimeError, AttributeError):
                    torch._C._cuda_endAllocateToPool(before.device_index, self._pool)
                # The allocator of pinned memory may stay in the failed capture for good and go on querying its graph.
                # So the graph is kept alive, and the anchor with it for the earlier graphs. Later ones get a new pool.
                self._kept_alive += [graph, self._anchor]
                self._anchor = None
                self._pool = torch.cuda.graph_pool_handle()
                raise

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

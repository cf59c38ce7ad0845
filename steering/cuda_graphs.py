"""Recording a pass as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class CudaGraphs:
    """Records one model's passes (`steering.recorded.Record`); they share their memory, for one runs at a time.

    stream: where they are captured. What may be replayed at the same time must be captured on different ones: cuBLAS
    has one workspace a stream, which the graphs keep using wherever they are replayed.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Capture what `run` queues. It has run before: libraries set themselves up at their first call."""
        graph = torch.cuda.CUDAGraph()
        # Other threads go on using the GPU meanwhile: an adapter may be loading.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            result = run()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

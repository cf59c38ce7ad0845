"""Recording a pass as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class CudaGraphs:
    """Records one model's passes (`steering.recorded.Record`); they share their memory, for one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Capture what `run` queues. It has run before: libraries set themselves up at their first call."""
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(self._device)
        # Other threads go on using the GPU meanwhile: an adapter may be loading.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            result = run()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

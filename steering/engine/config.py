"""An engine's limits, and the base's pool that follows from them and the memory there is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from steering.device.execution import Execution
from steering.model.kv_cache import KVCache
from steering.model.loaded_model import LoadedModel
from steering.model.pages import PageAllocator
from steering.model.row_input import RowInput
from steering.model.runner import Runner

# Of the memory that is free at start, a GPU's pool takes this share; a CPU's takes at most the bytes below.
_GPU_MEMORY_SHARE = 0.8
_CPU_POOL_BYTES = 1 << 30
# Scored prompt positions need their scores over the whole vocabulary, several float32 copies of them in memory at once:
# this many numbers a copy, 64 MB.
MOST_SCORES = 1 << 24


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits of one engine.

    `kv_cache_memory` is bytes for the base's pool; None chooses by the device. `kl_every`: a request's first token and
    every so-manieth after it say how far steering moved their distribution, which takes two passes over the vocabulary.
    `enforce_eager`: call each operation as it comes on a GPU too, see `steering.device.execution`.
    """

    max_num_seqs: int = 32
    max_model_len: int | None = None
    max_step_tokens: int = 512
    page_size: int = 16
    kv_cache_memory: int | None = None
    prefix_caching: bool = True
    kl_every: int = 1
    enforce_eager: bool = False


def make_pool(
    base: LoadedModel, config: EngineConfig, execution: Execution, max_model_len: int
) -> tuple[PageAllocator, Runner]:
    """The base's pool, as many pages as the memory allows and the limits can use."""
    probe = KVCache(PageAllocator(1, config.page_size))
    Runner(base, probe).forward([RowInput([0], 0, probe.allocator.allocate(1), 0)])
    memory = config.kv_cache_memory or _default_memory(base.device)
    enough = config.max_num_seqs * -(-max_model_len // config.page_size)
    pages = min(memory // probe.bytes_per_page, enough)
    if pages < 1:
        raise ValueError(f"kv_cache_memory: {memory} bytes hold no page of {probe.bytes_per_page} bytes")
    allocator = PageAllocator(int(pages), config.page_size, prefix_caching=config.prefix_caching)
    cache = KVCache(allocator)
    page = allocator.allocate(1)
    Runner(base, cache).forward([RowInput([0], 0, page, 0)])
    allocator.release(page)
    return allocator, Runner(base, cache, execution.capture_base)


def _default_memory(device: torch.device) -> int:
    if device.type == "cuda":
        # What loading left in torch's own cache is free as well: joined projections were in memory twice.
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _GPU_MEMORY_SHARE)
    return _CPU_POOL_BYTES

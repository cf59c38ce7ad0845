"""An engine's limits, and the base's pool and the scheduler that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from steering.device.execution import Execution
from steering.engine.scheduler import Scheduler
from steering.engine.sequence import SequenceState
from steering.model.kv_cache import KVCache
from steering.model.loaded_model import LoadedModel
from steering.model.pages import PageAllocator
from steering.model.row_input import RowInput
from steering.model.runner import Runner

# A GPU's pool takes this share of the memory that is free at start; a CPU's takes at most the bytes below.
_GPU_MEMORY_SHARE = 0.8
_CPU_POOL_BYTES = 1 << 30
# Scoring prompts keeps several float32 copies of scores `[positions, V]` in memory. One copy has at most this many
# numbers, 64 MB.
_MOST_SCORES = 1 << 24


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits of one engine.

    `kv_cache_memory`: bytes for the base's pool; None chooses by the device. `kl_every`: the KL divergence is measured
    at a request's first token and then at every `kl_every`-th, because it takes two passes over the vocabulary.
    `enforce_eager`: run a GPU without captured passes and without running ahead.
    Raises ValueError that names a limit below 1.
    """

    max_num_seqs: int = 32
    max_model_len: int | None = None
    max_step_tokens: int = 512
    page_size: int = 16
    kv_cache_memory: int | None = None
    prefix_caching: bool = True
    kl_every: int = 1
    enforce_eager: bool = False

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_model_len", "max_step_tokens", "page_size", "kl_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")


def make_pool(
    base: LoadedModel, config: EngineConfig, execution: Execution, max_model_len: int
) -> tuple[PageAllocator, Runner]:
    """Make the base's pool: as many pages as the memory holds and the limits can use.

    Raises ValueError where the memory holds no page.
    """
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


def make_scheduler(
    base: LoadedModel,
    config: EngineConfig,
    allocator: PageAllocator,
    hide: Callable[[SequenceState], None],
) -> Scheduler:
    """Make a scheduler whose steps have room for a token of every running sequence."""
    most_tokens = max(config.max_step_tokens, config.max_num_seqs)
    most_scored = max(1, _MOST_SCORES // base.vocab_size)
    return Scheduler(allocator, config.max_num_seqs, most_tokens, most_scored, hide)


def _default_memory(device: torch.device) -> int:
    if device.type == "cuda":
        # Loading held joined projections twice. torch's allocator still keeps that memory.
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _GPU_MEMORY_SHARE)
    return _CPU_POOL_BYTES

"""Pages whose contents are not finite are zeroed, wherever the pool's tensors end."""

from __future__ import annotations

import torch

from steering.model.kv_cache import KVCache
from steering.model.pages import PageAllocator

PAGE = 4


def test_pages_are_zeroed_also_before_the_pool_has_grown_to_hold_them() -> None:
    allocator = PageAllocator(2, PAGE, growable=True)
    cache = KVCache(allocator)
    first = allocator.allocate(1)
    nan = torch.full((PAGE, 1, 8), float("nan"))
    slots = torch.arange(first[0] * PAGE, (first[0] + 1) * PAGE)
    cache.write(0, slots, nan, nan)
    later = allocator.allocate(9)
    cache.invalidate([*first, *later])
    allocator.release([*first, *later])
    assert allocator.used == 0
    for pool in cache.write(0, slots[:0], nan[:0], nan[:0]):
        assert torch.equal(pool, torch.zeros_like(pool))

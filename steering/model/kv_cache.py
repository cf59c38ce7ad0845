"""The paged key/value pool of one model: its tensors, and the allocator that says whose each page is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.device.transfer import on_device
from steering.model.pages import PageAllocator

# Numbers of reduced precision in one of a CPU's vector registers.
_VECTOR = 32


class KVCache:
    """Keys and values per layer, `[pages, page_size, kv_heads, head_dim]`, made when a layer first writes.

    Making them at the first write takes the heads, head sizes and dtype from the model itself, whatever its
    configuration calls them. The last page of each is nobody's: the allocator does not know it, and what stands in a
    pass only to fill it up writes there. `generation` counts how often a layer's pool was made, or moved in memory.
    """

    def __init__(self, allocator: PageAllocator) -> None:
        self.allocator = allocator
        self.generation = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def bytes_per_page(self) -> int:
        """Memory of one page over all layers, in bytes; 0 before the first forward pass."""
        return sum(pool[0].numel() * pool.element_size() for pair in self._layers.values() for pool in pair)

    @property
    def padding_page(self) -> int:
        """The number of the page that belongs to no row."""
        return self.allocator.num_pages

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store `[tokens, kv_heads, head_dim]` keys and values at `slots` and return the layer's whole pools."""
        pools = self._layers.get(layer)
        if pools is None or pools[0].shape[0] <= self.padding_page:
            pools = (self._enlarge(pools and pools[0], keys), self._enlarge(pools and pools[1], values))
            self._layers[layer] = pools
        for pool, new in zip(pools, (keys, values), strict=True):
            pool.view(-1, *pool.shape[2:]).index_copy_(0, slots, new.to(pool.dtype))
        return pools

    def invalidate(self, pages: Sequence[int]) -> None:
        """Zero those of a row's pages that nobody else holds, and let nobody find them: what is in them is not finite.

        Whoever gets a page next overwrites it position by position, and reads the rest of it times zero.
        """
        alone = self.allocator.uncache(pages)
        for pair in self._layers.values() if alone else ():
            for pool in pair:
                pool[alone] = 0

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages, in every layer."""
        for keys, values in self._layers.values():
            source, target = on_device(sources, keys.device), on_device(targets, keys.device)
            for pool in (keys, values):
                pool.index_copy_(0, target, pool.index_select(0, source))

    @torch.inference_mode()
    def clear(self, slots: Sequence[int]) -> None:
        """Zero single positions: what is in them may be no number, and their page is about to be another row's."""
        for pair in self._layers.values():
            for pool in pair:
                flat = pool.view(-1, *pool.shape[2:])
                # One by one: they are few, and their numbers need not travel to the device.
                for slot in slots:
                    flat[slot] = 0

    def make_room(self) -> None:
        """Give every known layer the allocator's size now: before copying into new pages, or to fail early."""
        if all(pools[0].shape[0] > self.padding_page for pools in self._layers.values()):
            return
        for layer, pools in self._layers.items():
            keys, values = (self._enlarge(pool, pool[0]) for pool in pools)
            self._layers[layer] = (keys, values)

    def _enlarge(self, pool: Tensor | None, like: Tensor) -> Tensor:
        if pool is not None and pool.shape[0] > self.padding_page:
            return pool
        # Zeros, not empty: a masked position still takes part in a product, and 0 * NaN is NaN.
        shape = (self.padding_page + 1, self.allocator.page_size, *like.shape[1:])
        larger = torch.zeros(shape, dtype=_stored(like), device=like.device)
        if pool is not None:
            larger[: pool.shape[0] - 1] = pool[:-1]
            if pool.is_cuda:
                # Its memory goes back to the stream that it came from, which may not be the one that copies here.
                pool.record_stream(torch.cuda.current_stream(pool.device))
        self.generation += 1
        return larger


def _stored(like: Tensor) -> torch.dtype:
    """What keys or values are kept as: float32 where the CPU's attention kernel is slow at reduced precision.

    It is four times slower there for heads that do not fill its vectors, and a model with such heads is a tiny one.
    """
    return torch.float32 if like.device.type == "cpu" and like.shape[-1] % _VECTOR else like.dtype

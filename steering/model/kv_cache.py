"""The paged key/value pool of one model: its tensors, and the allocator that assigns its pages to rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.device.transfer import on_device
from steering.model.pages import PageAllocator

# Values of reduced precision in one vector register of a CPU.
_VECTOR = 32


class KVCache:
    """Keys and values per layer, `[pages, page_size, kv_heads, head_dim]`, created when a layer first writes.

    Creation at the first write takes the number of heads, their size and the dtype from the model itself, whatever its
    configuration calls them. The last page of each pool is the padding page: the allocator never hands it out, and
    padding tokens write there. `generation` counts how often a layer's pool was created or moved in memory.
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
        """The number of the page that padding tokens write to; it belongs to no row."""
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
        """Zero a row's pages that no other row holds, and remove them from the prefix cache: they are not finite.

        A page's next row overwrites it position by position. Until then its masked positions take part in products
        with a weight of zero, and 0 * NaN is NaN.
        """
        exclusive = self.allocator.uncache(pages)
        for pair in self._layers.values() if exclusive else ():
            for pool in pair:
                # The allocator may have grown since the last write: nothing is stored in pages beyond the pool.
                pool[[page for page in exclusive if page < pool.shape[0]]] = 0

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages in every layer, `sources[i]` to `targets[i]`."""
        for keys, values in self._layers.values():
            source, target = on_device(sources, keys.device), on_device(targets, keys.device)
            for pool in (keys, values):
                pool.index_copy_(0, target, pool.index_select(0, source))

    @torch.inference_mode()
    def clear(self, slots: Sequence[int]) -> None:
        """Zero single positions: they may hold NaN, and their page is about to go to another row."""
        for pair in self._layers.values():
            for pool in pair:
                flat = pool.view(-1, *pool.shape[2:])
                # One by one: the slots are few, and this way they need no copy to the device.
                for slot in slots:
                    flat[slot] = 0

    def make_room(self) -> None:
        """Enlarge every existing pool to the allocator's size: before a copy into new pages, or to fail early."""
        if all(pools[0].shape[0] > self.padding_page for pools in self._layers.values()):
            return
        for layer, pools in self._layers.items():
            keys, values = (self._enlarge(pool, pool[0]) for pool in pools)
            self._layers[layer] = (keys, values)

    def _enlarge(self, pool: Tensor | None, like: Tensor) -> Tensor:
        if pool is not None and pool.shape[0] > self.padding_page:
            return pool
        # Zeroed, not empty: a masked position still takes part in a product, and 0 * NaN is NaN.
        shape = (self.padding_page + 1, self.allocator.page_size, *like.shape[1:])
        larger = torch.zeros(shape, dtype=_stored(like), device=like.device)
        if pool is not None:
            larger[: pool.shape[0] - 1] = pool[:-1]
            if pool.is_cuda:
                # Freed memory returns to the stream that allocated it, which may not be the stream of this copy.
                pool.record_stream(torch.cuda.current_stream(pool.device))
        self.generation += 1
        return larger


def _stored(like: Tensor) -> torch.dtype:
    """The dtype of stored keys and values: float32 where the CPU's attention kernel is slow at reduced precision.

    The kernel is four times slower there for head sizes that do not fill its vectors. Models with such heads are tiny.
    """
    return torch.float32 if like.device.type == "cpu" and like.shape[-1] % _VECTOR else like.dtype

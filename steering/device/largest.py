"""A faster `topk` over large vocabularies."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 128
# Over a smaller vocabulary `topk` is as fast.
_LARGE = 1 << 16
# Where more than one block in 8 would be searched, searching all of them is as fast.
_SPARSE = 8


def largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Compute `scores.topk(count)` of `[rows, V]`: values and int64 indices, `[rows, count]` each, descending.

    The largest `count` scores lie in the `count` blocks with the largest maxima. A reduction over all scores finds
    these blocks, and only they are searched. On a CPU this takes a third of `topk`'s time over 151,936 scores; on a GPU
    it is not measured, and `topk` is used. Which of several equal scores are found is unspecified, but depends on their
    own row alone.
    """
    rows, size = scores.shape
    blocks = size // _BLOCK
    if scores.device.type != "cpu" or size < _LARGE or blocks < _SPARSE * count:
        values, places = scores.topk(count)
        return values, places
    whole = scores[:, : blocks * _BLOCK].view(rows, blocks, _BLOCK)
    found = whole.amax(-1).topk(count).indices[..., None]
    within = torch.arange(_BLOCK, device=scores.device)
    rest = torch.arange(blocks * _BLOCK, size, device=scores.device)
    places = torch.cat([(found * _BLOCK + within).flatten(1), rest.expand(rows, -1)], dim=1)
    values, order = scores.gather(1, places).topk(count)
    return values, places.gather(1, order)

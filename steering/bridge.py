"""The bridge `map`: a shift over the steering vocabulary becomes one over the base's by a single gather.

The other bridge, `rescore`, has a file of its own. Weak matches get nothing: a map's unmatched tokens are -1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mapping_cache import VocabularyMap


@dataclass(frozen=True, slots=True, eq=False)
class MapTensors:
    """A vocabulary map on the device.

    `ids`: int64 `[V_base]`, 0 where unmatched; `matched`: float32 `[V_base]`, 0 or 1.
    """

    ids: Tensor
    matched: Tensor
    is_identity: bool

    @classmethod
    def of(cls, vocabulary_map: VocabularyMap, device: torch.device) -> MapTensors:
        """Copy a map to `device`."""
        ids = torch.from_numpy(vocabulary_map.ids.astype("int64")).to(device)
        return cls(ids.clamp(min=0), (ids >= 0).float(), vocabulary_map.is_identity)


def carry(scores: Tensor, tensors: MapTensors) -> Tensor:
    """`[rows, V_steering]` -> `[rows, V_base]`: each matched token its counterpart's score, the others 0."""
    if tensors.is_identity:
        return scores
    return scores.index_select(1, tensors.ids) * tensors.matched


def map_shift(shift: Tensor, tensors: MapTensors, base_logprobs: Tensor, *, neutral: bool) -> Tensor:
    """The bridged shift `[rows, V_base]` of `shift` `[rows, V_steering]`, float32.

    A shift has an arbitrary offset. It cancels where every token is matched and does not where some are not, so with
    `neutral` the matched scores are centred on their mean under the base: an unmatched token then keeps exactly the
    share that the base gives it. The mean is over the *matched* probability, so that any offset cancels exactly.
    """
    carried = carry(shift, tensors)
    if tensors.is_identity or not neutral:
        return carried
    weights = base_logprobs.exp() * tensors.matched
    mean = (weights * carried).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True).clamp(min=1e-30)
    return (carried - mean) * tensors.matched

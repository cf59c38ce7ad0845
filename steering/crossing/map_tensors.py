"""A vocabulary map on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mapping_cache import VocabularyMap


@dataclass(frozen=True, slots=True, eq=False)
class MapTensors:
    """The matched base tokens and their counterparts. Unmatched tokens are left out.

    columns: int64 `[M]`, the matched base tokens, ascending. counterparts: int64 `[M]`, their steering tokens. Only a
    part of a large vocabulary is matched, and a step works on that part alone.
    """

    columns: Tensor
    counterparts: Tensor
    is_identity: bool

    @classmethod
    def of(cls, vocabulary_map: VocabularyMap, device: torch.device) -> MapTensors:
        """Copy a map to `device`."""
        ids = torch.from_numpy(vocabulary_map.ids.astype("int64")).to(device)
        columns = (ids >= 0).nonzero().squeeze(1)
        return cls(columns, ids[columns], vocabulary_map.is_identity)


def pick(scores: Tensor, columns: Tensor) -> Tensor:
    """`scores[:, columns]`. On a CPU `gather` takes a quarter of `index_select`'s time here."""
    return scores.gather(1, columns.expand(scores.shape[0], -1))

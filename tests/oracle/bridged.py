"""A base with one adapter, and the bridge `map` between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mapping_cache import VocabularyMap
from tests.oracle.models import NaiveAdapter, NaiveModel
from tests.oracle.text import history


@dataclass
class Pair:
    """A base, an adapter and the vocabulary map from one to the other."""

    base: NaiveModel
    adapter: NaiveAdapter
    mapped: VocabularyMap

    def encode(self, ids: Sequence[int]) -> list[int]:
        """The steering tokenizer's encoding of the text of the base's `ids`."""
        return history(self.base.vocabulary, self.adapter.tokenizer, self.mapped, ids)


def mapped_shift(pair: Pair, ids: Sequence[int]) -> torch.Tensor:
    """`[V_base]`: the shift after `ids` by the bridge `map`."""
    encoded = pair.encode(ids)
    shift = torch.zeros(pair.base.size)
    if not encoded:
        return shift
    places = torch.from_numpy(pair.mapped.ids.astype("int64"))
    matched = places >= 0
    scores = pair.adapter.raw(encoded)[-1]
    shift[matched] = scores[places[matched]]
    shift[matched] -= _mean(pair, ids)
    return shift


def _mean(pair: Pair, ids: Sequence[int]) -> float:
    """The mean of the matched tokens' scores under the base, which is subtracted so that 0 fits unmatched tokens."""
    encoded = pair.encode(ids)
    if pair.adapter.unmatched != "neutral" or pair.mapped.is_identity or not encoded:
        return 0.0
    places = torch.from_numpy(pair.mapped.ids.astype("int64"))
    matched = places >= 0
    if not matched.any():
        return 0.0
    scores = pair.adapter.raw(encoded)[-1][places[matched]]
    return float(pair.base.logprobs(ids)[matched].softmax(-1) @ scores)

"""Ways to treat the matches of a vocabulary map that are not exact: which of them get a shift, and how much of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mapping_cache import MapOptions, MatchKind, VocabularyMap

Weighting = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From the similarities of matches to the shares of the shift that they get, both float32 `[M]` in 0..1."""

PREFIXES = frozenset({MatchKind.EXACT, MatchKind.SPECIAL, MatchKind.PREFIX})


def whole(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every match gets the whole shift."""
    return np.ones_like(similarity)


def linear(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """The share is the similarity."""
    return similarity


def squared(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """The share is the square of the similarity."""
    return similarity**2


@dataclass(frozen=True, slots=True)
class Policy:
    """One way: `options` build the map, matches of `kinds` get a shift, and `weighting` says which share of it."""

    label: str
    options: MapOptions
    weighting: Weighting = whole
    kinds: frozenset[MatchKind] = field(default_factory=lambda: frozenset(MatchKind))

    def admitted(self, vocabulary_map: VocabularyMap) -> NDArray[np.bool_]:
        """The base tokens that get a shift, bool `[V_base]`."""
        return (vocabulary_map.ids >= 0) & np.isin(vocabulary_map.kind, list(self.kinds))


EXACT = Policy("exact only", MapOptions(min_similarity=1.0))
BY_SIMILARITY = Policy("all, by similarity", MapOptions(min_similarity=0.0), linear)
POLICIES = (
    EXACT,
    Policy("from 0.8, whole", MapOptions(min_similarity=0.8)),
    Policy("from 0.67, whole", MapOptions(min_similarity=0.66)),
    Policy("from 0.5, whole", MapOptions(min_similarity=0.5)),
    Policy("all, whole", MapOptions(min_similarity=0.0)),
    BY_SIMILARITY,
    Policy("all, by its square", MapOptions(min_similarity=0.0), squared),
    Policy("prefixes, whole", MapOptions(min_similarity=0.0), kinds=PREFIXES),
    Policy("all and mined fallback, by similarity", MapOptions(min_similarity=0.0, fallback=True), linear),
    Policy("mined from 0.5, whole", MapOptions(min_similarity=0.5, method="mined")),
    Policy("mined, by similarity", MapOptions(min_similarity=0.0, method="mined"), linear),
)

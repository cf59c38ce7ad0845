"""The published definition of a vocabulary map, taken literally: a loop over all pairs of tokens."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from rapidfuzz.distance import Levenshtein

from benchmarks.workloads.jobs import SEED
from mapping_cache import CanonicalVocabulary, Form, VocabularyMap


def nested_loop(
    form: Form, base: CanonicalVocabulary, steering: CanonicalVocabulary, built: VocabularyMap, sample: int
) -> float:
    """The seconds that the loop would take for all base tokens without an exact match, estimated from `sample` of them.

    Wu et al., *Cross-model Control* (2024): every steering token is compared with every base token. Raises
    RuntimeError where the loop finds another match than `built` has.
    """
    ordinary = built.similarity < 1.0
    ours: Sequence[bytes | str | None] = base.tokens if form == "bytes" else base.surfaces
    theirs: Sequence[bytes | str | None] = steering.tokens if form == "bytes" else steering.surfaces
    space: bytes | str = b" " if form == "bytes" else "\u2581"
    inexact = [token for token, own in enumerate(ours) if own and ordinary[token]]
    chosen = random.Random(SEED).sample(inexact, min(sample, len(inexact)))
    began = time.process_time()
    found = {token: _nearest(ours[token], theirs, space) for token in chosen}
    spent = time.process_time() - began
    for token, nearest in found.items():
        if nearest != built.nearest[token]:
            raise RuntimeError(
                f"base token {token}: the definition gives {nearest}, not {built.nearest[token]}"
            )
    return spent * len(inexact) / max(len(chosen), 1)


def _nearest(own: Any, theirs: Sequence[Any], space: Any) -> int:
    best, nearest = None, -1
    only_spaces = not own.strip(space)
    for token, other in enumerate(theirs):
        if not other or not (other.startswith(own) or own.startswith(other)):
            continue
        if other == space and not only_spaces:
            continue
        distance = Levenshtein.distance(own, other)
        if best is None or distance < best:
            best, nearest = distance, token
    return nearest

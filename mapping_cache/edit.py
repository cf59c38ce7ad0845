"""Matching by least normalised edit distance over a whole vocabulary (rapidfuzz)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import AnyStr

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from mapping_cache.matching import Match
from mapping_cache.vocabulary_map import MatchKind

_ROWS = 256


def edit_matches(
    wanted: Iterable[AnyStr],
    steering: Mapping[AnyStr, int],
    progress: Callable[[int, int], None] | None = None,
) -> dict[AnyStr, Match]:
    """The steering string of least normalised Levenshtein distance for each wanted one (as in FuseLLM).

    `steering` gives the lowest id of each distinct string. The distance is divided by the longer length; ties
    go to the lowest id; strings that share nothing with any steering string are left out.
    `progress(done, total)` counts wanted strings.
    """
    queries = sorted(set(wanted), key=lambda string: (len(string), string))
    choices = sorted(steering, key=lambda string: steering[string])
    found: dict[AnyStr, Match] = {}
    if not choices:
        return found
    texts = [_text(choice) for choice in choices]
    for start in range(0, len(queries), _ROWS):
        block = queries[start : start + _ROWS]
        scores = cdist(
            [_text(query) for query in block],
            texts,
            scorer=Levenshtein.normalized_similarity,
            dtype=np.float32,
            workers=-1,
        )
        best = scores.argmax(axis=1)  # the first of equals, and choices stand in order of id
        for row, query in enumerate(block):
            score = float(scores[row, best[row]])
            if score > 0.0:
                found[query] = Match(steering[choices[best[row]]], MatchKind.EDIT, score)
        if progress is not None:
            progress(min(start + _ROWS, len(queries)), len(queries))
    return found


def _text(string: bytes | str) -> str:
    # rapidfuzz hashes the elements of bytes one by one; Latin-1 text of the same symbols takes its fast path.
    return string.decode("latin-1") if isinstance(string, bytes) else string

"""Matches by least normalized edit distance over a whole vocabulary, computed by rapidfuzz."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import AnyStr

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from mapping_cache.matching.match import Match, MatchKind
from mapping_cache.matching.options import Progress

_ROWS = 256
"""Strings compared at once: bounds the matrix of scores at `[256, V_steering]`."""


def edit_matches(
    wanted: Iterable[AnyStr],
    steering: Mapping[AnyStr, int],
    progress: Progress | None = None,
) -> dict[AnyStr, Match]:
    """The steering string of least normalized Levenshtein distance for each wanted string, as in FuseLLM.

    `steering` gives the lowest id of each distinct string. The distance is divided by the length of the longer string.
    Ties go to the lowest id. A string of similarity 0 to every steering string is left out.
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
        best = scores.argmax(axis=1)  # argmax takes the first of equals; choices are in order of id
        for row, query in enumerate(block):
            score = float(scores[row, best[row]])
            if score > 0.0:
                found[query] = Match(steering[choices[best[row]]], MatchKind.EDIT, score)
        if progress is not None:
            progress(min(start + _ROWS, len(queries)), len(queries))
    return found


def _text(string: bytes | str) -> str:
    # rapidfuzz hashes the elements of `bytes` one by one, but has a fast path for Latin-1 text.
    return string.decode("latin-1") if isinstance(string, bytes) else string

"""Builds the vocabulary map from a base tokenizer to a steering tokenizer."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from mapping_cache.maps.vocabulary_map import VocabularyMap
from mapping_cache.matching.match import MatchKind
from mapping_cache.matching.options import DEFAULT_MIN_SIMILARITY, Form, MapOptions, Method, Progress
from mapping_cache.matching.token_matches import match_tokens
from mapping_cache.vocabularies.canonical import CanonicalVocabulary, canonical_vocabulary

CODE_VERSION = 1
"""Raised whenever the same inputs would give another map, so that maps on disk are rebuilt."""


def build_map(
    base: Any,
    steering: Any,
    *,
    method: Method = "pm-mined",
    form: Form = "bytes",
    min_similarity: float = DEFAULT_MIN_SIMILARITY,
    fallback: bool = False,
    base_size: int | None = None,
    steering_size: int | None = None,
    progress: Progress | None = None,
) -> VocabularyMap:
    """The map from a base tokenizer's ids to a steering tokenizer's ids: int32 `[V_base]`.

    `method` says how a token without an exact match is matched. "exact": not at all. "pm-mined": to its nearest prefix
    or extension, as published by Wu et al., *Cross-model Control* (NeurIPS 2024). "mined": to the token of least
    normalized edit distance in the whole steering vocabulary, as in FuseLLM. `fallback` uses "mined" for tokens for
    which "pm-mined" finds no candidate.

    `form` says what is compared. "bytes": the bytes that tokens stand for. "surface": tokens as the tokenizers write
    them, by the published rules; with `min_similarity=0` the result is the published map, bit for bit.

    A match of a similarity below `min_similarity` gets no shift. `base_size` and `steering_size` are the widths of the
    models' logits; ids beyond a tokenizer are unmatched. `progress(done, total)` is called while edit distances
    are computed. Two equal vocabularies give the identity, padding included, by every method.

    Raises `UnsupportedTokenizerError` on a tokenizer that cannot be understood and `ValueError` on a bad option.
    """
    options = MapOptions(method, form, min_similarity, fallback)
    return map_vocabularies(
        canonical_vocabulary(base, base_size),
        canonical_vocabulary(steering, steering_size),
        options,
        progress,
    )


def map_vocabularies(
    base: CanonicalVocabulary,
    steering: CanonicalVocabulary,
    options: MapOptions | None = None,
    progress: Progress | None = None,
) -> VocabularyMap:
    """The map between two vocabularies that are already read; otherwise as `build_map`."""
    options = options or MapOptions()
    fingerprint = map_fingerprint(base, steering, options)
    if base.same_tokens(steering):
        return _identity(len(base), len(steering), fingerprint)
    nearest = np.full(len(base), -1, np.int32)
    kind = np.full(len(base), MatchKind.UNMATCHED, np.uint8)
    similarity = np.zeros(len(base), np.float32)
    for token, match in match_tokens(base, steering, options, progress).items():
        nearest[token] = match.token
        kind[token] = match.kind
        similarity[token] = match.similarity
    strong = (kind != MatchKind.UNMATCHED) & (similarity >= np.float32(options.min_similarity))
    ids = np.where(strong, nearest, np.int32(-1)).astype(np.int32)
    return VocabularyMap(ids, nearest, kind, similarity, len(steering), fingerprint)


def map_fingerprint(base: CanonicalVocabulary, steering: CanonicalVocabulary, options: MapOptions) -> str:
    """A hex digest of both vocabularies, the options and the code's version: the key of a saved map."""
    parts = (CODE_VERSION, base.fingerprint, steering.fingerprint, options)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _identity(base_size: int, steering_size: int, fingerprint: str) -> VocabularyMap:
    shared = np.arange(base_size) < steering_size
    ids = np.where(shared, np.arange(base_size), -1).astype(np.int32)
    kind = np.where(shared, MatchKind.EXACT, MatchKind.UNMATCHED).astype(np.uint8)
    return VocabularyMap(ids, ids.copy(), kind, shared.astype(np.float32), steering_size, fingerprint)

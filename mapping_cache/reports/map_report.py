"""The report on a vocabulary map: figures as JSON-ready values, and a verdict."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from rapidfuzz.distance import LCSseq

from mapping_cache.maps.vocabulary_map import VocabularyMap
from mapping_cache.matching.match import MatchKind
from mapping_cache.reports.quality import quality_of, verdict
from mapping_cache.sample_texts import SAMPLE_TEXTS
from mapping_cache.vocabularies.canonical import CanonicalVocabulary, canonical_vocabulary

_BINS = 10
_WORST = 12

KIND_ORDER = ("exact", "special", "prefix", "extension", "edit", "unmatched")
"""The kinds of match in the order in which tables and pictures show them."""


def map_report(
    vocabulary_map: VocabularyMap,
    base: Any,
    steering: Any,
    *,
    base_vocabulary: CanonicalVocabulary | None = None,
    steering_vocabulary: CanonicalVocabulary | None = None,
) -> dict[str, Any]:
    """How well a base is matched by a steering model, as JSON-ready values.

    `base` and `steering` are the tokenizers that the map was built from. `base_vocabulary` and `steering_vocabulary`
    are their vocabularies, if they have been read already. The keys of the report:

    - "base_size", "steering_size", "identity": the vocabularies' sizes, and whether they are the same.
    - "counts": the number of base tokens of each kind of match; "unmatched" are those that get no shift.
    - "nearest_counts": the same, but matches too weak for a shift are counted under their kind.
    - "similarity": a histogram of the similarities of the nearest matches.
    - "text": shares of the base's tokens in the built-in sample texts, overall and by language. "exact": those that
      are matched exactly. "in_step": those of them that the steering tokenizer itself produces from that text.
    - "worst": frequent tokens of the sample texts whose match is not exact, with the nearest match. "text" is null
      where a token is only part of a character; "bytes" is in hex.
    - "quality" ("same", "good", "fair" or "poor") and "verdict", a few sentences.

    Raises `ValueError` where the vocabularies are not of the map's sizes.
    """
    base_vocabulary = base_vocabulary or canonical_vocabulary(base, len(vocabulary_map))
    steering_vocabulary = steering_vocabulary or canonical_vocabulary(steering, vocabulary_map.steering_size)
    if (len(base_vocabulary), len(steering_vocabulary)) != (
        len(vocabulary_map),
        vocabulary_map.steering_size,
    ):
        raise ValueError("the vocabularies are not of the map's sizes")
    encoded = {language: _encode(base, text) for language, text in SAMPLE_TEXTS.items()}
    text = _text_shares(vocabulary_map, encoded, steering)
    quality = "same" if vocabulary_map.is_identity else quality_of(text)
    return {
        "base_size": len(vocabulary_map),
        "steering_size": vocabulary_map.steering_size,
        "identity": vocabulary_map.is_identity,
        "counts": vocabulary_map.counts(),
        "nearest_counts": vocabulary_map.counts(refused=True),
        "similarity": _histogram(vocabulary_map, base_vocabulary),
        "text": text,
        "worst": _worst(vocabulary_map, encoded, base_vocabulary, steering_vocabulary),
        "quality": quality,
        "verdict": verdict(quality, text),
    }


def _encode(tokenizer: Any, text: str) -> list[int]:
    encoded = tokenizer.encode(text, add_special_tokens=False)
    ids: list[int] = getattr(encoded, "ids", encoded)
    return ids


def _text_shares(
    vocabulary_map: VocabularyMap, encoded: dict[str, list[int]], steering: Any
) -> dict[str, Any]:
    """The report's "text"; `encoded` gives the base's token ids of each language's sample text."""
    exact = (vocabulary_map.ids >= 0) & (vocabulary_map.kind == MatchKind.EXACT)
    languages = []
    total = hits = in_step = 0
    for language, tokens in encoded.items():
        matched = [int(vocabulary_map.ids[t]) if t < len(exact) and exact[t] else -1 for t in tokens]
        both = sum(target >= 0 for target in matched)
        # A normalizer may change the text, so positions are not comparable; the longest common subsequence is.
        common = int(LCSseq.similarity(matched, _encode(steering, SAMPLE_TEXTS[language])))
        shares = {"exact": _share(both, len(tokens)), "in_step": _share(common, len(tokens))}
        languages.append({"language": language, "tokens": len(tokens), **shares})
        total, hits, in_step = total + len(tokens), hits + both, in_step + common
    return {
        "tokens": total,
        "exact": _share(hits, total),
        "in_step": _share(in_step, total),
        "languages": languages,
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _histogram(vocabulary_map: VocabularyMap, base: CanonicalVocabulary) -> list[dict[str, Any]]:
    present = np.array([surface is not None for surface in base.surfaces], dtype=bool)
    # 0.3 in float32 lies just below or above 3/10, so a little is added. The last bin holds similarity 1 alone.
    bins = np.floor(vocabulary_map.similarity[present].astype(np.float64) * _BINS + 1e-6).astype(np.int64)
    totals = np.bincount(bins, minlength=_BINS + 1)
    return [
        {"from": index / _BINS, "to": min((index + 1) / _BINS, 1.0), "tokens": int(total)}
        for index, total in enumerate(totals)
    ]


def _worst(
    vocabulary_map: VocabularyMap,
    encoded: dict[str, list[int]],
    base: CanonicalVocabulary,
    steering: CanonicalVocabulary,
) -> list[dict[str, Any]]:
    """The inexactly matched tokens of the sample texts that lose most: count times (1 - similarity)."""
    counts = Counter(token for tokens in encoded.values() for token in tokens if token < len(vocabulary_map))
    loss = {
        token: count * (1.0 - float(vocabulary_map.similarity[token]))
        for token, count in counts.items()
        if vocabulary_map.similarity[token] < 1.0 and token not in base.specials
    }
    worst = sorted(loss, key=lambda token: (-loss[token], token))[:_WORST]
    rows = []
    for token in worst:
        nearest = int(vocabulary_map.nearest[token])
        rows.append(
            {
                **_described(base, token),
                "count": counts[token],
                "nearest": _described(steering, nearest) if nearest >= 0 else None,
                "kind": MatchKind(int(vocabulary_map.kind[token])).name.lower(),
                "similarity": round(float(vocabulary_map.similarity[token]), 4),
                "steered": bool(vocabulary_map.ids[token] >= 0),
            }
        )
    return rows


def _described(vocabulary: CanonicalVocabulary, token: int) -> dict[str, Any]:
    data = vocabulary.tokens[token]
    if data is None:
        return {"token": token, "text": vocabulary.surfaces[token], "bytes": None}
    try:
        return {"token": token, "text": data.decode(), "bytes": data.hex(" ")}
    except UnicodeDecodeError:
        return {"token": token, "text": None, "bytes": data.hex(" ")}

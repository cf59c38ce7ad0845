"""Says how well one vocabulary carries over to another, in figures and in plain words."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from rapidfuzz.distance import LCSseq

from mapping_cache.canonical import CanonicalVocabulary, canonical_vocabulary
from mapping_cache.samples import SAMPLES
from mapping_cache.vocabulary_map import MatchKind, VocabularyMap

_BINS = 10
_WORST = 12
_GOOD_SHARE = 0.85
_FAIR_SHARE = 0.6
# A vocabulary of single bytes is in every other one, and steered badly all the same.
_GOOD_IN_STEP = 0.6
_FAIR_IN_STEP = 0.3

MATCH_ORDER = ("exact", "special", "prefix", "extension", "edit", "unmatched")
"""The kinds of match in the order in which people are shown them."""


def map_report(
    vocabulary_map: VocabularyMap,
    base: Any,
    steering: Any,
    *,
    base_vocabulary: CanonicalVocabulary | None = None,
    steering_vocabulary: CanonicalVocabulary | None = None,
) -> dict[str, Any]:
    """What a map is worth, as JSON-ready values.

    `base` and `steering` are the tokenizers the map was built from; their vocabularies, where already read, save
    reading them again. Keys: "base_size", "steering_size", "identity"; "counts", base tokens by kind of match, of
    which "unmatched" get no shift; "nearest_counts", the same with matches too weak to be let through counted
    by the kind they would have had; "similarity", a histogram of the nearest matches; "text", the share of a
    built-in sample's tokens that are matched exactly ("exact"), and of those that are and that the steering tokenizer
    itself cuts out of that text ("in_step"), overall and by language; "worst", frequent tokens of that
    sample that get no shift or a weak one, with the nearest match ("text" is null where a token is only part of
    a character; "bytes" is in hex); "quality" ("same", "good", "fair" or "poor") and "verdict".
    """
    base_vocabulary = base_vocabulary or canonical_vocabulary(base, len(vocabulary_map))
    steering_vocabulary = steering_vocabulary or canonical_vocabulary(steering, vocabulary_map.steering_size)
    if (len(base_vocabulary), len(steering_vocabulary)) != (
        len(vocabulary_map),
        vocabulary_map.steering_size,
    ):
        raise ValueError("the vocabularies are not of the map's sizes")
    encoded = {language: _encode(base, text) for language, text in SAMPLES.items()}
    text = _text_shares(vocabulary_map, encoded, steering)
    quality = _quality(vocabulary_map, text)
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
        "verdict": _verdict(quality, text),
    }


def _encode(tokenizer: Any, text: str) -> list[int]:
    encoded = tokenizer.encode(text, add_special_tokens=False)
    ids: list[int] = getattr(encoded, "ids", encoded)
    return ids


def _text_shares(
    vocabulary_map: VocabularyMap, encoded: dict[str, list[int]], steering: Any
) -> dict[str, Any]:
    exact = (vocabulary_map.ids >= 0) & (vocabulary_map.kind == MatchKind.EXACT)
    languages = []
    total = hits = in_step = 0
    for language, tokens in encoded.items():
        matched = [int(vocabulary_map.ids[t]) if t < len(exact) and exact[t] else -1 for t in tokens]
        both = sum(target >= 0 for target in matched)
        # By the longest common subsequence, so that it does not matter what a normaliser makes of the text.
        common = int(LCSseq.similarity(matched, _encode(steering, SAMPLES[language])))
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
    # 0.3 in float32 lies just below or above 3/10; the last bin holds exactly 1.
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
    spelled = vocabulary.tokens[token]
    if spelled is None:
        return {"token": token, "text": vocabulary.surfaces[token], "bytes": None}
    try:
        return {"token": token, "text": spelled.decode(), "bytes": spelled.hex(" ")}
    except UnicodeDecodeError:
        return {"token": token, "text": None, "bytes": spelled.hex(" ")}


def _quality(vocabulary_map: VocabularyMap, text: dict[str, Any]) -> str:
    return "same" if vocabulary_map.is_identity else _level(text)


def _level(entry: dict[str, Any]) -> str:
    """ "good", "fair" or "poor", by the shares of a language or of all of them."""
    if entry["exact"] >= _GOOD_SHARE and entry["in_step"] >= _GOOD_IN_STEP:
        return "good"
    return "fair" if entry["exact"] >= _FAIR_SHARE and entry["in_step"] >= _FAIR_IN_STEP else "poor"


def _verdict(quality: str, text: dict[str, Any]) -> str:
    if quality == "same":
        return "Both have the same vocabulary: an adapter made for the one steers every token of the other."
    said = (
        f"The steering model's vocabulary has {text['exact']:.0%} of the base's tokens in a sample text, "
        f"and {text['in_step']:.0%} are also where it would put them itself."
    )
    if quality == "good":
        said += " An adapter should steer the base almost as well as a model of its own vocabulary."
    if quality != "good" and text["exact"] < _GOOD_SHARE:
        said += (
            " A token that only the base has keeps the base's own score with the bridge map; the bridge rescore, which "
            "compares text instead of single tokens, closes most of these gaps."
        )
    if quality != "good" and text["in_step"] < _GOOD_IN_STEP:
        said += (
            " Where the base cuts text into smaller pieces than the steering model does, a steering model has seen no "
            "text that ends there, and steering is weaker with either bridge."
        )
    levels = {
        level: [_named(e) for e in text["languages"] if _level(e) == level] for level in ("good", "poor")
    }
    if levels["good"] and quality != "good":
        said += f" Well matched: {', '.join(levels['good'])}."
    return said + (f" Badly matched: {', '.join(levels['poor'])}." if levels["poor"] else "")


def _named(entry: dict[str, Any]) -> str:
    return str(entry["language"])

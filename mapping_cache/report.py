"""Says how well one vocabulary carries over to another, in figures and in plain words."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mapping_cache.canonical import CanonicalVocabulary, canonical_vocabulary
from mapping_cache.samples import SAMPLES
from mapping_cache.vocabulary_map import MatchKind, VocabularyMap

_BINS = 10
_WORST = 12
_GOOD_SHARE = 0.85
_FAIR_SHARE = 0.6

_MEANINGS = {
    "exact": "the same piece of text in both",
    "special": "markers such as the end of a turn, matched by what they are for",
    "prefix": "the nearest is the beginning of the token",
    "extension": "the nearest is a longer token that begins with this one",
    "edit": "the nearest is the token spelled most alike",
    "unmatched": "nothing alike in the other vocabulary",
}
MATCH_ORDER = tuple(_MEANINGS)
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
    built-in sample's tokens that are matched exactly, overall and by language; "worst", frequent tokens of that
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
    text = _text_shares(vocabulary_map, encoded)
    quality = _quality(vocabulary_map, text["exact"])
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


def render_report(
    report: dict[str, Any],
    console: Console | None = None,
    *,
    base: str = "the base",
    steering: str = "the steering model",
) -> None:
    """Prints a report of `map_report` for people; `base` and `steering` are the names to call them by."""
    console = console or Console()
    console.print(Text(f"From {base} to {steering}: {report['quality']}", style="bold"))
    console.print(Text(report["verdict"]))
    sections = [("The base's tokens by their nearest match in the other vocabulary", _counts_table(report))]
    if not report["identity"]:
        sections = [
            ("Sample text: share of the base's tokens that both vocabularies have", _text_table(report)),
            *sections,
            (
                "How alike the base's tokens and their nearest matches are (1 is the same)",
                _histogram_table(report),
            ),
        ]
    if report["worst"]:
        sections.append(
            ("Tokens of the sample text that lose most, with their nearest match", _worst_table(report))
        )
    for title, table in sections:
        # Not the table's own title: rich would wrap that to the table's width.
        console.print()
        console.print(Text(title, style="bold"))
        console.print(table)


def _encode(tokenizer: Any, text: str) -> list[int]:
    encoded = tokenizer.encode(text, add_special_tokens=False)
    ids: list[int] = getattr(encoded, "ids", encoded)
    return ids


def _text_shares(vocabulary_map: VocabularyMap, encoded: dict[str, list[int]]) -> dict[str, Any]:
    exact = (vocabulary_map.ids >= 0) & (vocabulary_map.kind == MatchKind.EXACT)
    languages = []
    for language, tokens in encoded.items():
        hits = sum(bool(exact[token]) for token in tokens if token < len(exact))
        languages.append({"language": language, "tokens": len(tokens), "exact": _share(hits, len(tokens))})
    everything = [token for tokens in encoded.values() for token in tokens]
    hits = sum(bool(exact[token]) for token in everything if token < len(exact))
    return {"tokens": len(everything), "exact": _share(hits, len(everything)), "languages": languages}


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


def _shown(described: dict[str, Any] | None) -> Text:
    if described is None:
        return Text("none")
    if described["text"] is None:
        return Text(f"part of a character ({described['bytes']})")
    return Text(repr(described["text"]))


def _quality(vocabulary_map: VocabularyMap, exact: float) -> str:
    if vocabulary_map.is_identity:
        return "same"
    if exact >= _GOOD_SHARE:
        return "good"
    return "fair" if exact >= _FAIR_SHARE else "poor"


def _verdict(quality: str, text: dict[str, Any]) -> str:
    if quality == "same":
        return "Both have the same vocabulary: an adapter made for the one steers every token of the other."
    share = f"The steering model's vocabulary has {text['exact']:.0%} of the base's tokens in a sample text."
    advice = {
        "good": " An adapter should steer the base almost as well as a model of its own vocabulary.",
        "fair": (
            " An adapter can steer the base, with gaps: a token that only the base has keeps the base's own "
            "score. The bridge rescore, which compares text instead of single tokens, closes many of them."
        ),
        "poor": (
            " Over all languages that is too little for matching token by token (the bridge map). Use the "
            "bridge rescore, which compares text instead, or an adapter whose vocabulary is nearer to the base's."
        ),
    }[quality]
    strong = [_named(entry) for entry in text["languages"] if entry["exact"] >= _GOOD_SHARE]
    weak = [_named(entry) for entry in text["languages"] if entry["exact"] < _FAIR_SHARE]
    if strong and quality != "good":
        advice += f" Well matched: {', '.join(strong)}."
    return share + advice + (f" Badly matched: {', '.join(weak)}." if weak else "")


def _named(entry: dict[str, Any]) -> str:
    return f"{entry['language']} ({entry['exact']:.0%})"


def _counts_table(report: dict[str, Any]) -> Table:
    table = Table("match", "meaning")
    for heading in ("steered", "not steered"):
        table.add_column(heading, justify="right")
    for kind in MATCH_ORDER:
        steered, nearest = report["counts"][kind], report["nearest_counts"][kind]
        name = kind
        if kind == "unmatched":
            name, steered = "none", 0
        if nearest:
            table.add_row(name, _MEANINGS[kind], f"{steered:,}", f"{nearest - steered:,}")
    unsteered = report["counts"]["unmatched"]
    table.add_section()
    table.add_row("in all", _total(report), f"{report['base_size'] - unsteered:,}", f"{unsteered:,}")
    return table


def _total(report: dict[str, Any]) -> str:
    """The share of the base's vocabulary that is steered, in words."""
    share = 1 - report["counts"]["unmatched"] / max(report["base_size"], 1)
    return f"{share:.0%} of the base's tokens, frequent and rare alike"


def _histogram_table(report: dict[str, Any]) -> Table:
    table = Table("similarity")
    table.add_column("tokens", justify="right")
    table.add_column("")
    largest = max([entry["tokens"] for entry in report["similarity"]], default=0)
    for entry in report["similarity"]:
        whole = entry["from"] == entry["to"]
        label = f"{entry['from']:.1f}" if whole else f"{entry['from']:.1f} to {entry['to']:.1f}"
        table.add_row(label, f"{entry['tokens']:,}", "\u2588" * round(40 * entry["tokens"] / max(largest, 1)))
    return table


def _text_table(report: dict[str, Any]) -> Table:
    table = Table("text")
    for heading in ("tokens", "in both"):
        table.add_column(heading, justify="right")
    for entry in report["text"]["languages"]:
        table.add_row(entry["language"], f"{entry['tokens']:,}", f"{entry['exact']:.0%}")
    table.add_section()
    table.add_row("all", f"{report['text']['tokens']:,}", f"{report['text']['exact']:.0%}")
    return table


def _worst_table(report: dict[str, Any]) -> Table:
    table = Table("token", "nearest")
    for heading in ("times", "similarity"):
        table.add_column(heading, justify="right")
    for row in report["worst"]:
        similarity = "" if row["nearest"] is None else f"{row['similarity']:.2f}"
        table.add_row(_shown(row), _shown(row["nearest"]), str(row["count"]), similarity)
    return table

"""The share of weak matches that are right on real text: the other half of the experiment behind the map's defaults.

`python -m examples.map_text FOLDER` takes the published tokenizers in a folder, each as base and as steering tokenizer.
A base token's shift is the steering model's score of the steering token that it is matched with. That score is about
the next token only where the steering tokenizer itself would put that token there. So each token of the report's sample
text is looked up: a match is *right* if the steering tokenizer's encoding of the text has a boundary there, and the
matched token behind it. Prints the share of right matches by kind and similarity, and by pair of tokenizers. For each
pair it also prints the *crowd*: the number of base tokens that get one steering token's shift. No model is needed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from mapping_cache import (
    SAMPLE_TEXTS,
    CanonicalVocabulary,
    MapOptions,
    MatchKind,
    Method,
    VocabularyMap,
    canonical_vocabulary,
    map_vocabularies,
)

NAMES = ("llama-2", "gpt2", "llama-3", "qwen")
EDGES = (0.0, 0.25, 0.5, 0.67, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class Read:
    """A tokenizer, its vocabulary, and its tokens of each sample with the bytes at which they start."""

    tokenizer: Any
    vocabulary: CanonicalVocabulary
    samples: tuple[tuple[tuple[int, int], ...], ...]


def read(folder: Path) -> Read:
    """Load the tokenizer in a folder and encode the samples."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = canonical_vocabulary(tokenizer)
    return Read(
        tokenizer,
        vocabulary,
        tuple(tuple(placed(tokenizer, vocabulary, text)) for text in SAMPLE_TEXTS.values()),
    )


def placed(tokenizer: Any, vocabulary: CanonicalVocabulary, text: str) -> Iterator[tuple[int, int]]:
    """The tokens of a text, each with the place of its first byte. A dummy prefix would be at -1 and counts as 0."""
    place = 0 if vocabulary.dummy_prefix == "none" else -1
    for token in tokenizer.encode(text, add_special_tokens=False):
        yield max(place, 0), token
        place += len(vocabulary.tokens[token] or b"")


def band(kind: MatchKind, similarity: float) -> str:
    """The row of the table that a match belongs to."""
    if kind is MatchKind.EXACT:
        return "exact"
    if kind is MatchKind.UNMATCHED:
        return "none"
    low, high = next((a, b) for a, b in pairwise(EDGES) if similarity < b)
    return f"{kind.name.lower()} {low:g} to {high:g}"


def compare(base: Read, steering: Read, vocabulary_map: VocabularyMap) -> tuple[Counter[str], Counter[str]]:
    """The number of text tokens by band, and the number of those with a right match."""
    seen: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for ours, theirs in zip(base.samples, steering.samples, strict=True):
        # Several tokens may start at one place, where all but the last are empty. The first one counts.
        own = dict(reversed(theirs))
        for place, token in ours:
            row = band(MatchKind(int(vocabulary_map.kind[token])), float(vocabulary_map.similarity[token]))
            seen[row] += 1
            right[row] += own.get(place) == int(vocabulary_map.nearest[token])
    return seen, right


def crowd(steering: Read, vocabulary_map: VocabularyMap, min_similarity: float) -> float:
    """The number of base tokens that get a steering token's shift, as a mean over the steering tokenizer's text."""
    let_through = vocabulary_map.nearest[
        (vocabulary_map.nearest >= 0) & (vocabulary_map.similarity >= min_similarity)
    ]
    takers = np.bincount(let_through, minlength=vocabulary_map.steering_size)
    text = [token for sample in steering.samples for _, token in sample]
    return float(takers[text].mean())


def right_of(kind: str, seen: Counter[str], right: Counter[str]) -> str:
    """The share of right matches among the matches of a kind, with their number, as a table's cell."""
    rows = [row for row in seen if row.startswith(kind)]
    total = sum(seen[row] for row in rows)
    return f"{sum(right[row] for row in rows) / total:.0%} of {total:,}" if total and kind != "none" else ""


def tables(every: Mapping[str, Read], method: Method) -> Iterator[str]:
    """The lines of both tables: by kind and similarity over all pairs, then by pair."""
    seen: Counter[str] = Counter()
    right: Counter[str] = Counter()
    pairs = []
    for base, steering in permutations(every, 2):
        options = MapOptions(method=method, min_similarity=0.0)
        built = map_vocabularies(every[base].vocabulary, every[steering].vocabulary, options)
        ours, theirs = compare(every[base], every[steering], built)
        seen, right = seen + ours, right + theirs
        shares = [right_of(kind, ours, theirs) for kind in ("exact", "prefix", "extension", "edit")]
        takers = [f"{crowd(every[steering], built, least):,.1f}" for least in (1.0, 0.8, 0.67, 0.5, 0.0)]
        pairs.append(" | ".join([f"| {base}", steering, *shares, *takers]) + " |")
    yield "| match | share of the text's tokens | of these right |"
    yield "| --- | --- | --- |"
    for row in sorted(seen, key=lambda row: (-seen[row], row)):
        yield f"| {row} | {seen[row] / seen.total():.1%} | {right_of(row, seen, right)} |"
    yield ""
    yield "| base | steering | exact | prefix | extension | edit | crowd: exact | from 0.8 | 0.67 | 0.5 | all |"
    yield "| --- " * 11 + "|"
    yield from pairs


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the share of right matches by kind and by pair of tokenizers."""
    parser = argparse.ArgumentParser(prog="python -m examples.map_text", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="holds the tokenizers' folders: " + ", ".join(NAMES))
    parser.add_argument("--method", choices=("pm-mined", "mined"), default="pm-mined")
    chosen = parser.parse_args(arguments)
    every = {name: read(chosen.folder / name) for name in NAMES}
    for line in tables(every, chosen.method):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()

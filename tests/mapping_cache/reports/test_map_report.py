"""The report's figures for a pair that is small enough to count by hand, and its tables."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mapping_cache import (
    SAMPLE_TEXTS,
    VocabularyMap,
    build_map,
    canonical_vocabulary,
    map_report,
    render_report,
)
from mapping_cache.vocabularies.surfaces import byte_alphabet


def byte_level(*merges: tuple[str, str]) -> Tokenizer:
    pieces = [*byte_alphabet(), *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE({piece: token for token, piece in enumerate(pieces)}, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.fixture(scope="module")
def pair() -> tuple[Tokenizer, Tokenizer, VocabularyMap]:
    base, steering = byte_level(("t", "h"), ("th", "e")), byte_level(("t", "h"))
    return base, steering, build_map(base, steering)


def test_the_figures_are_right(pair: tuple[Tokenizer, Tokenizer, VocabularyMap]) -> None:
    report = map_report(pair[2], pair[0], pair[1])
    assert (report["base_size"], report["steering_size"], report["identity"]) == (258, 257, False)
    assert (report["counts"]["exact"], report["counts"]["unmatched"]) == (257, 1)
    assert report["nearest_counts"]["prefix"] == 1
    assert [entry["tokens"] for entry in report["similarity"]] == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 257]
    times = sum(text.count("the") for text in SAMPLE_TEXTS.values())
    assert report["worst"] == [
        {
            "token": 257,
            "text": "the",
            "bytes": "74 68 65",
            "count": times,
            "nearest": {"token": 256, "text": "th", "bytes": "74 68"},
            "kind": "prefix",
            "similarity": 0.6667,
            "steered": False,
        }
    ]
    total = report["text"]["tokens"]
    assert report["text"]["exact"] == pytest.approx((total - times) / total, abs=1e-4)
    assert report["text"]["in_step"] == report["text"]["exact"]
    assert {entry["language"] for entry in report["text"]["languages"]} == set(SAMPLE_TEXTS)
    assert report["quality"] == "good"
    assert json.loads(json.dumps(report)) == report


def test_one_vocabulary_is_said_to_be_the_same(pair: tuple[Tokenizer, Tokenizer, VocabularyMap]) -> None:
    report = map_report(build_map(pair[0], pair[0]), pair[0], pair[0])
    assert (report["quality"], report["identity"], report["worst"]) == ("same", True, [])
    assert report["text"]["exact"] == 1.0


def test_a_poor_pair_is_said_to_be_poor(pair: tuple[Tokenizer, Tokenizer, VocabularyMap]) -> None:
    letters = Tokenizer(models.WordLevel({"z": 0}, unk_token="z"))
    report = map_report(build_map(pair[0], letters), pair[0], letters)
    assert report["quality"] == "poor"
    assert "English" in report["verdict"]


def test_a_base_of_finer_tokens_is_not_said_to_be_good(
    pair: tuple[Tokenizer, Tokenizer, VocabularyMap],
) -> None:
    letters, words = byte_level(), byte_level(("t", "h"), ("th", "e"))
    report = map_report(build_map(letters, words), letters, words)
    merged = sum(
        3 * text.count("the") + 2 * text.replace("the", "").count("th") for text in SAMPLE_TEXTS.values()
    )
    total = report["text"]["tokens"]
    assert report["text"]["exact"] == 1.0
    assert report["text"]["in_step"] == pytest.approx((total - merged) / total, abs=1e-4)
    one_word = Tokenizer(
        models.WordLevel({text: number for number, text in enumerate([*SAMPLE_TEXTS.values(), "e"])})
    )
    longest = map_report(
        build_map(letters, words), letters, one_word, steering_vocabulary=canonical_vocabulary(words)
    )
    assert (longest["text"]["exact"], longest["quality"]) == (1.0, "poor")
    assert longest["text"]["in_step"] < 0.01
    assert "smaller pieces" in longest["verdict"]


def test_half_characters_are_shown_as_bytes() -> None:
    base, steering = byte_level(("Ã", "¼"), ("Ð", "¾"), ("Ð¾", "Ð")), byte_level()
    report = map_report(build_map(base, steering), base, steering)
    shown = {row["bytes"]: row["text"] for row in report["worst"]}
    assert shown == {"c3 bc": "ü", "d0 be": "о", "d0 be d0": None}
    output = StringIO()
    render_report(report, Console(file=output, width=120))
    assert "part of a character (d0 be d0)" in output.getvalue()


def test_the_report_prints(pair: tuple[Tokenizer, Tokenizer, VocabularyMap]) -> None:
    output = StringIO()
    report = map_report(pair[2], pair[0], pair[1])
    render_report(report, Console(file=output, width=120), base="big", steering="[small]")
    printed = output.getvalue()
    assert "From big to [small]" in printed
    assert "'the'" in printed
    assert report["verdict"].split(".")[0] in " ".join(printed.split())


def test_a_map_of_other_sizes_is_refused(pair: tuple[Tokenizer, Tokenizer, VocabularyMap]) -> None:
    with pytest.raises(ValueError, match="sizes"):
        map_report(pair[2], *pair[:2], base_vocabulary=canonical_vocabulary(pair[1]))

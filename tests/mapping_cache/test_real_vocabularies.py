"""Four published vocabularies: identity maps, known counts of exact matches, and texts that survive encoding."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapping_cache import build_map, canonical_vocabulary, load_or_build

NAMES = ["llama-2", "gpt2", "llama-3", "qwen"]
LoadTokenizer = Callable[[str], Any]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["bytes", "surface"])
def test_a_real_vocabulary_maps_onto_itself(real_tokenizer: LoadTokenizer, name: str, form: Any) -> None:
    tokenizer = real_tokenizer(name)
    built = build_map(tokenizer, tokenizer, form=form)
    assert built.is_identity
    assert built.counts()["exact"] == len(tokenizer)


@pytest.mark.parametrize(
    ("base", "steering", "exact"),
    [
        ("gpt2", "llama-2", 18_207),
        ("llama-3", "llama-2", 26_599),
        ("qwen", "llama-2", 26_342),
        ("llama-2", "gpt2", 18_303),
        ("llama-2", "llama-3", 26_695),
    ],
)
def test_exact_matches_of_real_pairs(
    real_tokenizer: LoadTokenizer, base: str, steering: str, exact: int
) -> None:
    built = build_map(real_tokenizer(base), real_tokenizer(steering), method="exact")
    assert built.counts()["exact"] == exact


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_real_tokenizers_tokens_are_the_text(real_tokenizer: LoadTokenizer, name: str, text: str) -> None:
    tokenizer = real_tokenizer(name)
    vocabulary = _vocabulary(real_tokenizer, name)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    joined = b"".join(vocabulary.tokens[token] or b"" for token in ids)
    if name == "llama-2":
        # Its normalizer writes a space as U+2581, so that the two cannot be told apart, and adds one in front.
        text, joined = text.replace("\u2581", " "), joined.removeprefix(b" ")
    assert joined == text.encode()


def test_special_tokens_of_chat_models_meet_by_role(real_tokenizer: LoadTokenizer) -> None:
    qwen, llama = real_tokenizer("qwen"), real_tokenizer("llama-2")
    built = build_map(qwen, llama)
    ids = {surface: int(built.ids[qwen.convert_tokens_to_ids(surface)]) for surface in qwen.get_added_vocab()}
    assert ids == {"<|im_end|>": 2, "<|endoftext|>": 2, "<|im_start|>": -1}


def test_padded_logits_are_unmatched(real_tokenizer: LoadTokenizer) -> None:
    built = build_map(real_tokenizer("qwen"), real_tokenizer("gpt2"), base_size=151_936, steering_size=50_304)
    assert (len(built), built.steering_size) == (151_936, 50_304)
    assert set(built.ids[151_646:].tolist()) == {-1}


def test_a_large_map_loads_in_a_blink(real_tokenizer: LoadTokenizer, tmp_path: Any) -> None:
    qwen = canonical_vocabulary(real_tokenizer("qwen"))
    llama = canonical_vocabulary(real_tokenizer("llama-2"))
    built = load_or_build(qwen, llama, cache_dir=tmp_path)
    started = time.perf_counter()
    assert load_or_build(qwen, llama, cache_dir=tmp_path) == built
    assert time.perf_counter() - started < 0.5  # ten times the usual time, for a busy machine


_vocabularies: dict[str, Any] = {}


def _vocabulary(real_tokenizer: LoadTokenizer, name: str) -> Any:
    if name not in _vocabularies:
        _vocabularies[name] = canonical_vocabulary(real_tokenizer(name))
    return _vocabularies[name]

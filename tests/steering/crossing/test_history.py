"""Law 5: a history is always the encoding of the text so far, however the text came."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import AutoTokenizer

from mapping_cache import CanonicalVocabulary, VocabularyMap, build_map, canonical_vocabulary
from steering.crossing.encoder import SteeringEncoder
from steering.crossing.history import SharedHistory, TextHistory
from tests.models import SAMPLE
from tests.oracle import complete_text, history
from tests.steering.support import tokenizer_of

PAIRS = [("sp", "bl"), ("bl", "sp"), ("sp", "sp"), ("bl", "bl")]
REAL = [
    ("gpt2", "llama-2"),
    ("llama-2", "gpt2"),
    ("llama-3", "llama-2"),
    ("qwen", "llama-3"),
    ("llama-2", "qwen"),
]
WORDS = [
    "the ",
    "lake",
    " sea",
    "naïve",
    "  ",
    "\n\n",
    "\t",
    "It's",
    " 1234",
    "<s>",
    "</s>",
    "<|endoftext|>",
    "<0x41>",
]
WORDS += [
    "▁",
    "Ġ",
    "日本",
    "👩‍👩‍👧",
    "e\u0301",
    "\u0301",
    "\u200b",
    "\ufffd",
    "ﬁ",
    "Ω",
    "한국",
    "각",
    "\r\n",
    "",
]
TEXT = st.lists(st.one_of(st.text(max_size=6), st.sampled_from(WORDS)), max_size=8).map("".join)


class Pair:
    """Two tokenizers and the histories between them, through the text even over one vocabulary."""

    def __init__(self, base: PreTrainedTokenizerBase, steering: PreTrainedTokenizerBase) -> None:
        self.base, self.steering = base, steering
        self.vocabulary: CanonicalVocabulary = canonical_vocabulary(base)
        self.map: VocabularyMap = build_map(base, steering, method="exact")
        self.specials = {t: int(self.map.ids[t]) for t in self.vocabulary.specials if self.map.ids[t] >= 0}
        self.encoder = SteeringEncoder(steering, canonical_vocabulary(steering))

    def new(self) -> TextHistory:
        return TextHistory(self.vocabulary, self.encoder, self.specials)

    def scratch(self, ids: list[int]) -> list[int]:
        return history(self.vocabulary, self.steering, self.map, ids, by_text=True)

    def check(self, ids: list[int], *, every: int = 1) -> None:
        """Feed `ids` one by one. Check the history, its first changed token and the foreseen continuation at each."""
        row = self.new()
        for step, token in enumerate(ids):
            before = list(row.tokens)
            foreseen = row.continuation(token)
            changed = row.push(token)
            assert before[:changed] == row.tokens[:changed]
            assert before[changed : changed + 1] != row.tokens[changed : changed + 1] or before == row.tokens
            if foreseen is not None and self.vocabulary.tokens[token] is not None:
                assert before[: foreseen.common] + foreseen.suffix == row.tokens
            if step % every == 0 or step == len(ids) - 1:
                assert row.tokens == self.scratch(ids[: step + 1])


@cache
def tiny_pair(base: str, steering: str) -> Pair:
    return Pair(tokenizer_of(base), tokenizer_of(steering))


@cache
def real_pair(folder: Path, base: str, steering: str) -> Pair:
    return Pair(
        AutoTokenizer.from_pretrained(folder / "tokenizers" / base),
        AutoTokenizer.from_pretrained(folder / "tokenizers" / steering),
    )


@pytest.fixture(scope="module")
def slow_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A byte-level base and a steering tokenizer that is Python code around a SentencePiece model."""
    sentencepiece = pytest.importorskip("sentencepiece")
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    prefix = tmp_path_factory.mktemp("slow") / "pieces"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SAMPLE.splitlines()),
        model_prefix=str(prefix),
        model_type="bpe",
        vocab_size=480,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    slow = SentencePieceBackend(
        vocab_file=f"{prefix}.model", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    return Pair(tokenizer_of("bl"), slow)


def test_law_05_holds_for_a_slow_steering_tokenizer(slow_pair: Pair) -> None:
    @settings(max_examples=40)
    @given(TEXT)
    @example("The ferry left the harbour<s> at nine, and </s>naïve 日本\n c")
    def check(text: str) -> None:
        slow_pair.check(slow_pair.base.encode(text, add_special_tokens=False))

    check()


@pytest.mark.parametrize(("base", "steering"), PAIRS)
def test_law_05_history_is_the_encoding_of_the_text(base: str, steering: str) -> None:
    pair = tiny_pair(base, steering)

    @given(TEXT)
    @example("I skated on it.<s> Hello  there</s>I said a b c d 👩‍👩‍👧 e\u0301 it's a b\n c")
    @settings(max_examples=40)
    def check(text: str) -> None:
        pair.check(pair.base.encode(text), every=3)

    check()


@pytest.mark.parametrize(("base", "steering"), PAIRS)
def test_law_05_history_under_any_split_of_the_bytes(base: str, steering: str) -> None:
    """Any ids at all: halves of characters, special tokens in the middle, tokens that no encoder would give."""
    pair = tiny_pair(base, steering)
    ids = st.one_of(
        st.integers(0, len(pair.vocabulary) - 1),
        st.sampled_from(sorted(pair.vocabulary.specials)),
        st.sampled_from([i for i, data in enumerate(pair.vocabulary.tokens) if data and data[0] >= 0x80]),
    )

    @given(st.lists(ids, max_size=16))
    @settings(max_examples=60)
    def check(tokens: list[int]) -> None:
        pair.check(tokens)

    check()


@pytest.mark.parametrize(("base", "steering"), REAL)
def test_law_05_history_between_published_tokenizers(shared: Path, base: str, steering: str) -> None:
    pair = real_pair(shared, base, steering)

    @given(TEXT, st.lists(st.integers(0, len(pair.vocabulary) - 1), max_size=6))
    @example("Once upon a time a b c they're 12345 naïve 你好 ok<s>then", [])
    @settings(max_examples=30)
    def check(text: str, more: list[int]) -> None:
        pair.check([*pair.base.encode(text), *more], every=4)

    check()


def test_history_of_one_vocabulary_is_the_tokens_themselves() -> None:
    row = SharedHistory()
    for place, token in enumerate([5, 1, 5, 7]):
        assert row.push(token) == place
    assert row.tokens == [5, 1, 5, 7]


def test_history_keeps_what_later_text_cannot_change() -> None:
    """A long text costs a little a token, not the whole text again (cut at the last word boundary)."""
    pair = tiny_pair("bl", "sp")
    row = pair.new()
    for token in pair.base.encode("The children skated on it and their mothers called them in at dusk " * 8):
        before = len(row.tokens)
        changed = row.push(token)
        assert before - changed <= 12
    assert row.reencoded <= len(row.tokens)


def test_typed_special_tokens_stay_text() -> None:
    pair = tiny_pair("bl", "sp")
    row = pair.new()
    for token in pair.base.encode("a<s>b</s>"):
        row.push(token)
    assert row.tokens[0] == 1
    assert 1 not in row.tokens[1:]
    assert 2 not in row.tokens


def test_half_a_character_waits() -> None:
    pair = tiny_pair("bl", "sp")
    halves = pair.base.encode("€")
    assert len(halves) > 1
    row = pair.new()
    for half in halves[:-1]:
        row.push(half)
        assert row.tokens == [1]
    row.push(halves[-1])
    assert row.tokens == pair.steering.encode("€")
    assert complete_text("€".encode()[:2]) == ""

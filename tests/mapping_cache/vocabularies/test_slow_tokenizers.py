"""Slow tokenizers: the bytes of a text's tokens are the text, and tokenizers that are not understood are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertTokenizerLegacy,
    ByT5Tokenizer,
    CanineTokenizer,
    CTRLTokenizer,
    PerceiverTokenizer,
    PreTrainedTokenizer,
    Wav2Vec2CTCTokenizer,
)

from mapping_cache import (
    SAMPLE_TEXTS,
    CanonicalVocabulary,
    UnsupportedTokenizerError,
    build_map,
    canonical_vocabulary,
    map_report,
)
from mapping_cache.vocabularies.surfaces import byte_alphabet

WORDS = ["the", "ferry", "left", "then", "he", "there"]
SENTENCEPIECE = [
    (kind, dummy_prefix, byte_fallback)
    for kind in ("bpe", "unigram", "char")
    for dummy_prefix in (True, False)
    for byte_fallback in (True, False)
]

# A special token's own text is that token, not its characters.
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=30).filter(
    lambda text: not any(special in text for special in ("<unk>", "<s>", "</s>"))
)
sentences = st.lists(st.sampled_from([*WORDS, "hert", "l"]), max_size=6).map(" ".join)


class MergingTokenizer(PreTrainedTokenizer):  # type: ignore[misc]
    """BPE over bytes in GPT-2's alphabet; with `marked`, over characters, where `</w>` marks the end of a word."""

    def __init__(self, marked: bool, **kwargs: Any) -> None:
        self._marked = marked
        alphabet = {byte: character for character, byte in byte_alphabet().items()}
        if marked:
            letters = sorted(set("".join(WORDS)))
            units = [*letters, *(f"{letter}</w>" for letter in letters)]
            merges = [("t", "h"), ("th", "e</w>"), ("h", "e</w>")]
        else:
            self.byte_encoder = alphabet
            units = [*alphabet.values()]
            merges = [("t", "h"), ("\u0120", "th"), ("e", "r")]
        self.bpe_ranks = {merge: rank for rank, merge in enumerate(merges)}
        pieces = ["<unk>", *units, *("".join(merge) for merge in merges)]
        self.encoder = {piece: token for token, piece in enumerate(pieces)}
        super().__init__(unk_token="<unk>", **kwargs)

    @property
    def vocab_size(self) -> int:
        return len(self.encoder)

    def get_vocab(self) -> dict[str, int]:
        return {**self.encoder, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        if not self._marked:
            return self._merge([self.byte_encoder[byte] for byte in text.encode()])
        words = [[*word[:-1], f"{word[-1]}</w>"] for word in text.split()]
        return [piece for word in words for piece in self._merge(word)]

    def _merge(self, pieces: list[str]) -> list[str]:
        for left, right in self.bpe_ranks:
            merged: list[str] = []
            for piece in pieces:
                if merged and (merged[-1], piece) == (left, right):
                    merged[-1] += piece
                else:
                    merged.append(piece)
            pieces = merged
        return pieces

    def _convert_token_to_id(self, token: str) -> int:
        return self.encoder.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return list(self.encoder)[index]


def bert(folder: Path) -> Any:
    pieces = [
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[PAD]",
        "[MASK]",
        "the",
        "he",
        "##r",
        "##e",
        "##n",
        "##t",
        "left",
        "l",
    ]
    (folder / "vocab.txt").write_text("\n".join([*pieces, "ferry", "there"]))
    return BertTokenizerLegacy(str(folder / "vocab.txt"))


def ctrl(folder: Path) -> Any:
    letters = sorted(set("".join(WORDS)))
    pieces = ["<unk>", *letters, *(f"{letter}@@" for letter in letters), "th@@", "the", "the@@"]
    (folder / "vocab.json").write_text(json.dumps({piece: token for token, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version\nt h\nth e\nth e</w>\n")
    return CTRLTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


FAMILIES: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "wordpiece": (bert, False),
    "end-of-word": (lambda _: MergingTokenizer(marked=True), False),
    "continuing-suffix": (ctrl, False),
    "byte-level": (lambda _: MergingTokenizer(marked=False), True),
    "bytes": (lambda _: ByT5Tokenizer(), True),
    "bytes-of-perceiver": (lambda _: PerceiverTokenizer(), True),
    "characters": (lambda _: CanineTokenizer(), True),
}
"""How each family is made, and whether it can encode any text or only sentences of known words."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, CanonicalVocabulary]]:
    known: dict[str, tuple[Any, CanonicalVocabulary]] = {}

    def make(family: str) -> tuple[Any, CanonicalVocabulary]:
        if family not in known:
            tokenizer = FAMILIES[family][0](tmp_path_factory.mktemp(family))
            known[family] = tokenizer, canonical_vocabulary(tokenizer)
        return known[family]

    return make


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, CanonicalVocabulary]]:
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    folder = tmp_path_factory.mktemp("sentencepiece")
    known: dict[Any, tuple[Any, CanonicalVocabulary]] = {}

    def make(kind: str, dummy_prefix: bool, byte_fallback: bool) -> tuple[Any, CanonicalVocabulary]:
        key = kind, dummy_prefix, byte_fallback
        if key not in known:
            trainer.train(
                sentence_iterator=iter([*SAMPLE_TEXTS.values(), *WORDS]),
                model_prefix=str(folder / "-".join(map(str, key))),
                model_type=kind,
                vocab_size=700,
                hard_vocab_limit=False,
                add_dummy_prefix=dummy_prefix,
                byte_fallback=byte_fallback,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                num_threads=1,
                minloglevel=2,
            )
            file = str(folder / ("-".join(map(str, key)) + ".model"))
            tokenizer = SentencePieceBackend(
                vocab_file=file, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
            )
            known[key] = tokenizer, canonical_vocabulary(tokenizer)
        return known[key]

    return make


def encoded_bytes(tokenizer: Any, vocabulary: CanonicalVocabulary, text: str) -> bytes:
    ids = tokenizer.encode(text, add_special_tokens=False)
    joined = b"".join(vocabulary.tokens[token] or b"" for token in ids)
    return joined.removeprefix(b" ") if vocabulary.dummy_prefix != "none" else joined


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(unknown=any_text, known=sentences)
def test_the_tokens_of_a_text_are_the_text(
    made: Callable[[str], tuple[Any, CanonicalVocabulary]], family: str, unknown: str, known: str
) -> None:
    tokenizer, vocabulary = made(family)
    text = unknown if FAMILIES[family][1] else known
    if family == "characters":
        # CANINE's ids are code points; a few of them, U+0000 (padding) among them, are special and stand for no text.
        text = "".join(character for character in text if ord(character) not in vocabulary.specials)
    # A token that ends a word stands for a space too, also at the end of the text.
    assert encoded_bytes(tokenizer, vocabulary, text).removesuffix(b" ") == text.encode().removesuffix(b" ")


@pytest.mark.parametrize(("kind", "dummy_prefix", "byte_fallback"), SENTENCEPIECE)
@settings(max_examples=40, deadline=None)
@given(unknown=any_text, known=sentences)
def test_the_tokens_of_a_sentencepiece_model_are_the_text(
    sentencepiece: Callable[..., tuple[Any, CanonicalVocabulary]],
    kind: str,
    dummy_prefix: bool,
    byte_fallback: bool,
    unknown: str,
    known: str,
) -> None:
    tokenizer, vocabulary = sentencepiece(kind, dummy_prefix, byte_fallback)
    assert vocabulary.dummy_prefix == ("always" if dummy_prefix else "none")
    assert len(vocabulary.byte_tokens) == (256 if byte_fallback else 0)
    assert dict(vocabulary.specials) == {0: "<unk>", 1: "<s>", 2: "</s>"}
    text = known + unknown if byte_fallback else known
    assert encoded_bytes(tokenizer, vocabulary, text) == text.encode()


def test_slow_and_fast_meet_in_bytes(
    made: Callable[[str], tuple[Any, CanonicalVocabulary]],
    sentencepiece: Callable[..., tuple[Any, CanonicalVocabulary]],
) -> None:
    pieces, bytes_alone = sentencepiece("bpe", True, True), made("bytes")
    built = build_map(pieces[0], bytes_alone[0])
    assert built.counts()["exact"] >= 256
    for token, target in enumerate(built.ids.tolist()):
        if target >= 0 and token not in pieces[1].specials:
            assert pieces[1].tokens[token] == bytes_alone[1].tokens[target]
    assert built.ids[pieces[0].eos_token_id] == bytes_alone[0].eos_token_id
    assert build_map(pieces[0], pieces[0]).is_identity
    report = map_report(build_map(bytes_alone[0], pieces[0]), bytes_alone[0], pieces[0])
    assert report["text"]["exact"] == 1.0


def test_added_tokens_stand_for_themselves(tmp_path: Path) -> None:
    tokenizer = bert(tmp_path)
    tokenizer.add_tokens(["left bank"])
    vocabulary = canonical_vocabulary(tokenizer)
    assert vocabulary.tokens[tokenizer.convert_tokens_to_ids("left bank")] == b"left bank"
    assert vocabulary.tokens[tokenizer.convert_tokens_to_ids("left")] == b" left"


class Swapped(MergingTokenizer):
    """Swaps "t" and "h" before it encodes, so that its tokens do not stand for the text."""

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return super()._tokenize(text.translate({ord("t"): "h", ord("h"): "t"}))


def foreign_alphabet() -> Any:
    tokenizer = MergingTokenizer(marked=False)
    tokenizer.byte_encoder = {byte: chr(0x4E00 + byte) for byte in range(256)}
    return tokenizer


def speech(folder: Path) -> Any:
    (folder / "vocab.json").write_text(
        json.dumps({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "B": 5})
    )
    return Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))


@pytest.mark.parametrize(
    ("part", "make", "reason"),
    [
        ("byte_encoder", lambda _: foreign_alphabet(), "alphabet"),
        ("model", lambda _: Swapped(marked=True), "seem to stand for"),
        ("model", speech, "Wav2Vec2CTCTokenizer has no SentencePiece model"),
        ("backend", lambda _: object(), "object is no tokenizer"),
    ],
)
def test_what_is_not_understood_is_named(
    tmp_path: Path, part: str, make: Callable[[Path], Any], reason: str
) -> None:
    with pytest.raises(UnsupportedTokenizerError, match=reason) as raised:
        canonical_vocabulary(make(tmp_path))
    assert raised.value.part == part

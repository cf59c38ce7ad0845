"""Every family of fast tokenizers: the bytes of a text's tokens are the text, and unknown parts are refused."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mapping_cache import CanonicalVocabulary, UnsupportedTokenizerError, build_map, canonical_vocabulary
from mapping_cache.vocabularies.surfaces import METASPACE, byte_alphabet

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["a", "b", "c", METASPACE, f"{METASPACE}a", "ab", f"{METASPACE}ab", METASPACE * 2]
MERGES = [(METASPACE, "a"), ("a", "b"), (f"{METASPACE}a", "b"), (METASPACE, METASPACE)]
LLAMA_DECODERS = [decoders.Replace(METASPACE, " "), decoders.ByteFallback(), decoders.Fuse()]


def numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: token for token, piece in enumerate(pieces)}


def with_specials(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def sentencepiece_bpe() -> Tokenizer:
    vocabulary = numbered(["<unk>", "<s>", "</s>", *BYTES, *PIECES])
    tokenizer = Tokenizer(
        models.BPE(vocabulary, MERGES, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(METASPACE), normalizers.Replace(" ", METASPACE)]
    )
    tokenizer.decoder = decoders.Sequence([*LLAMA_DECODERS, decoders.Strip(" ", 1, 0)])
    return with_specials(tokenizer)


def sentencepiece_bpe_without_dummy_prefix() -> Tokenizer:
    vocabulary = numbered(["<unk>", "<s>", "</s>", *BYTES, *PIECES])
    tokenizer = Tokenizer(models.BPE(vocabulary, MERGES, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", METASPACE)
    tokenizer.decoder = decoders.Sequence(LLAMA_DECODERS)
    return with_specials(tokenizer)


def metaspace_bpe(scheme: str) -> Tokenizer:
    vocabulary = numbered(["<unk>", "<s>", "</s>", *BYTES, *PIECES])
    tokenizer = Tokenizer(models.BPE(vocabulary, MERGES, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(METASPACE, scheme, split=False)
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence([*LLAMA_DECODERS, *strip])
    return with_specials(tokenizer)


def unigram(byte_fallback: bool) -> Tokenizer:
    pieces = ["<unk>", "<s>", "</s>", *(BYTES if byte_fallback else []), *PIECES]
    scored = [(piece, -float(len(PIECES) - len(piece))) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=byte_fallback))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(METASPACE, "always")
    plain = decoders.Metaspace(METASPACE, "always")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), plain]) if byte_fallback else plain
    return with_specials(tokenizer)


def byte_level() -> Tokenizer:
    alphabet = list(byte_alphabet())
    vocabulary = numbered([*alphabet, "\u0120a", "ab", "\u0120ab"])
    merges = [("\u0120", "a"), ("a", "b"), ("\u0120a", "b")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.add_tokens([AddedToken("na\u00efve tool", normalized=False)])
    return tokenizer


def wordpiece() -> Tokenizer:
    vocabulary = numbered(
        ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "a", "b", "c", "##a", "##b", "##c", "ab", "##bc"]
    )
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]"])
    return tokenizer


def characters() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(numbered(["[UNK]", "a", "b", "c", " "]), unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def word_endings(byte_level: bool) -> Tokenizer:
    """BPE whose words end in `</w>`: over bytes as in CLIP, over characters as in the first GPT."""
    letters = list(byte_alphabet()) if byte_level else ["a", "b", "c"]
    pieces = ["<unk>", *letters, *(f"{letter}</w>" for letter in letters), "ab", "ab</w>", "abc</w>"]
    merges = [("a", "b"), ("a", "b</w>"), ("ab", "c</w>")]
    tokenizer = Tokenizer(models.BPE(numbered(pieces), merges, unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder("</w>")
    if byte_level:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        words = pre_tokenizers.Split(Regex(r"[^\s]+"), "removed", invert=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def continuing_bpe() -> Tokenizer:
    pieces = ["<unk>", "a", "b", "c", "##a", "##b", "##c", "ab"]
    tokenizer = Tokenizer(
        models.BPE(numbered(pieces), [("a", "##b")], unk_token="<unk>", continuing_subword_prefix="##")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def byte_tokens() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(numbered(["<unk>", *BYTES]), [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>"])
    return tokenizer


def encoded_bytes(vocabulary: CanonicalVocabulary, ids: list[int]) -> bytes:
    return b"".join(vocabulary.tokens[token] or b"" for token in ids)


def round_trip(tokenizer: Any, vocabulary: CanonicalVocabulary, text: str) -> bytes:
    joined = encoded_bytes(vocabulary, tokenizer.encode(text, add_special_tokens=False).ids)
    return joined.removeprefix(b" ") if vocabulary.dummy_prefix != "none" else joined


any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=[METASPACE]), max_size=30)
known_text = st.text("abc ", max_size=12)


def single_spaced(text: str) -> str:
    return " ".join(text.split())


def ended_words(text: str) -> str:
    """The lower-case words of `text`, each followed by a space."""
    return "".join(f"{word} " for word in unicodedata.normalize("NFC", text).lower().split())


# For each family: how it is made, its dummy prefix, whether it can encode any text, and the text that its tokens stand
# for. Metaspace adds its space only where the text does not start with one; WordPiece keeps no runs of spaces.
FAMILIES: dict[str, tuple[Any, str, bool, Callable[[str], str]]] = {
    "sentencepiece-bpe": (sentencepiece_bpe, "always", True, str),
    "sentencepiece-bpe-no-prefix": (sentencepiece_bpe_without_dummy_prefix, "none", True, str),
    "metaspace-first": (lambda: metaspace_bpe("first"), "first", True, str.lstrip),
    "metaspace-always": (lambda: metaspace_bpe("always"), "always", True, str.lstrip),
    "metaspace-never": (lambda: metaspace_bpe("never"), "none", True, str),
    "unigram": (lambda: unigram(False), "always", False, str.lstrip),
    "unigram-byte-fallback": (lambda: unigram(True), "always", True, str.lstrip),
    "byte-level": (byte_level, "none", True, str),
    "wordpiece": (wordpiece, "first", False, single_spaced),
    "word-endings": (lambda: word_endings(False), "none", False, ended_words),
    "word-endings-byte-level": (lambda: word_endings(True), "none", True, ended_words),
    "continuing-bpe": (continuing_bpe, "first", False, single_spaced),
    "characters": (characters, "none", False, str),
    "bytes": (byte_tokens, "none", True, str),
}


@pytest.fixture(scope="module")
def families() -> dict[str, tuple[Tokenizer, CanonicalVocabulary]]:
    made = {name: make() for name, (make, *_) in FAMILIES.items()}
    return {name: (tokenizer, canonical_vocabulary(tokenizer)) for name, tokenizer in made.items()}


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(unknown=any_text, known=known_text)
@example(unknown="a na\u00efve tool \U0001f6a2b", known="")
def test_the_tokens_of_a_text_are_the_text(
    families: dict[str, tuple[Tokenizer, CanonicalVocabulary]], family: str, unknown: str, known: str
) -> None:
    tokenizer, vocabulary = families[family]
    _, _, spells_anything, prepare = FAMILIES[family]
    text = prepare(known + unknown if spells_anything else known)
    assert round_trip(tokenizer, vocabulary, text) == text.encode()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_dummy_prefix_is_found(
    families: dict[str, tuple[Tokenizer, CanonicalVocabulary]], family: str
) -> None:
    assert families[family][1].dummy_prefix == FAMILIES[family][1]


@pytest.mark.parametrize("base", FAMILIES)
def test_families_meet_in_bytes(
    families: dict[str, tuple[Tokenizer, CanonicalVocabulary]], base: str
) -> None:
    from_tokenizer, from_vocabulary = families[base]
    for to_tokenizer, to_vocabulary in families.values():
        built = build_map(from_tokenizer, to_tokenizer, method="exact")
        for token, target in enumerate(built.ids.tolist()):
            if target >= 0:
                assert from_vocabulary.tokens[token] == to_vocabulary.tokens[target]
        if from_tokenizer is to_tokenizer:
            assert built.is_identity


def test_roles_and_specials_come_from_the_tokenizer(
    families: dict[str, tuple[Tokenizer, CanonicalVocabulary]],
) -> None:
    vocabulary = families["sentencepiece-bpe"][1]
    assert vocabulary.specials == {0: "<unk>", 1: "<s>", 2: "</s>"}
    assert {role: sorted(ids) for role, ids in vocabulary.roles.items()} == {
        "unk": [0],
        "bos": [1],
        "eos": [2],
        "pad": [],
    }
    assert vocabulary.tokens[:3] == (None, None, None)
    assert len(vocabulary.byte_tokens) == 256


def test_a_chat_tokenizer_has_several_ends_of_turn() -> None:
    from transformers import PreTrainedTokenizerFast

    backend = byte_level()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    vocabulary = canonical_vocabulary(tokenizer)
    surfaces = {vocabulary.specials[token] for token in vocabulary.roles["eos"]}
    assert surfaces == {"<|im_end|>", "<|endoftext|>"}
    assert vocabulary.specials[vocabulary.main["eos"]] == "<|im_end|>"
    built = build_map(tokenizer, sentencepiece_bpe())
    assert {int(built.ids[token]) for token in vocabulary.roles["eos"]} == {2}


def test_size_is_that_of_the_logits() -> None:
    tokenizer = byte_level()
    natural = canonical_vocabulary(tokenizer)
    wide = canonical_vocabulary(tokenizer, len(natural) + 5)
    assert wide.tokens[len(natural) :] == (None,) * 5
    assert wide.same_tokens(natural)
    assert wide.fingerprint != natural.fingerprint
    narrow = canonical_vocabulary(tokenizer, 10)
    assert (len(narrow), dict(narrow.specials)) == (10, {})
    assert build_map(sentencepiece_bpe(), tokenizer, min_similarity=0.0, steering_size=10).ids.max() < 10


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("decoder", lambda t: setattr(t, "decoder", decoders.CTC())),
        ("decoder", lambda t: setattr(t, "decoder", decoders.Replace("a", "b"))),
        ("decoder", lambda t: setattr(t, "decoder", decoders.Strip("a", 1, 0))),
        ("pre_tokenizer", lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.CharDelimiterSplit("-"))),
        ("pre_tokenizer", lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Split(" ", "removed"))),
        ("normalizer", lambda t: setattr(t, "normalizer", normalizers.Prepend("x"))),
        (
            "pre_tokenizer",
            lambda t: setattr(t, "model", models.BPE({"a</w>": 0}, [], end_of_word_suffix="</w>")),
        ),
        ("decoder", lambda t: setattr(t, "decoder", decoders.BPEDecoder("</w>"))),
    ],
)
def test_what_is_not_understood_is_named(part: str, change: Any) -> None:
    tokenizer = characters()
    change(tokenizer)
    with pytest.raises(UnsupportedTokenizerError, match=part) as raised:
        canonical_vocabulary(tokenizer)
    assert raised.value.part == part


def test_a_tokenizer_without_the_library_is_refused() -> None:
    with pytest.raises(UnsupportedTokenizerError, match="backend"):
        canonical_vocabulary(object())

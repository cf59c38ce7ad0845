"""Text without word boundaries: a history stays exact, and each token costs the same however long the text is."""

from __future__ import annotations

import base64
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mapping_cache import canonical_vocabulary
from steering.crossing.encoder import SteeringEncoder
from steering.crossing.history import TextHistory
from tests.steering.support import tokenizer_of

PUBLISHED = ["llama-2", "gpt2", "llama-3", "qwen"]
HAN = "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生，。"
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Words with their endings and marks together, as in o200k.
O200K_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Digits in groups of three from the right.
FROM_THE_RIGHT = r"\p{L}+|\d{1,3}(?=(?:\d{3})*(?!\d))|[^\s\p{L}\d]+|\s+"
ALPHABET = "ab1!' \n"


def texts(length: int) -> dict[str, str]:
    draw = random.Random(7)
    return {
        "chinese": "".join(draw.choice(HAN) for _ in range(length)),
        "one letter": "a" * length,
        "base64": base64.b64encode(draw.randbytes(length)).decode()[:length],
        "csv": ",".join(str(draw.randrange(10**6)) for _ in range(length))[:length],
        "one digit": "1" * length,
        "family emoji": "👩‍👩‍👧" * (length // 5),
        "accents": "e\u0301a\u0300\u0323" * (length // 5),
        "spaces and lines": (" " * 40 + "\n" * 30) * (length // 70),
        "dashes": "-" * length,
        "punctuation": "".join(draw.choice("!?.,;:-_()[]{}#$%&*+/|~`^<>=@\"'") for _ in range(length)),
        "thai": ("ประเทศไทยเป็นประเทศที่มีวัฒนธรรมอันยาวนาน" * length)[:length],
        "code": ("for(i=0;i<n;i++){a[i]=b[i]*c;}" * length)[:length],
        "all planes": "".join(
            chr(draw.choice([draw.randrange(0x20, 0xD800), draw.randrange(0xE000, 0x10FFFF)]))
            for _ in range(length)
        ),
    }


class Setup:
    """A steering tokenizer, and the history of a byte-level base in it."""

    def __init__(self, steering: PreTrainedTokenizerFast) -> None:
        self.base = tokenizer_of("bl")
        self.vocabulary = canonical_vocabulary(self.base)
        self.steering_vocabulary = canonical_vocabulary(steering)
        self.steering = steering
        self.encoder = SteeringEncoder(steering, self.steering_vocabulary)

    def push(self, text: str, *, check_every: int) -> tuple[int, int]:
        """Push a text's tokens, checking the history on the way. Returns tokens, and characters encoded for them."""
        history = TextHistory(self.vocabulary, self.encoder, {})
        scratch = SteeringEncoder(self.steering, self.steering_vocabulary)
        ids = self.base.encode(text, add_special_tokens=False)
        work, so_far, stream = 0, "", history._stream.copy()
        for number, token in enumerate(ids):
            foreseen = history.continuation(token) if number % 5 == 0 else None
            before, start = list(history.tokens), self.encoder.encoded_characters
            history.push(token)
            work += self.encoder.encoded_characters - start
            so_far += stream.push_one(token)
            if foreseen is not None:
                assert before[: foreseen.common] + foreseen.suffix == history.tokens
            if number % check_every == 0 or number == len(ids) - 1:
                assert history.tokens == [*scratch.prefix, *scratch.encode(so_far)], so_far[-60:]
        return len(ids), work


@cache
def published(folder: Path, name: str) -> Setup:
    return Setup(AutoTokenizer.from_pretrained(folder / "tokenizers" / name))


@pytest.mark.parametrize("kind", sorted(texts(70)))
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tokenizers_cost_the_same_for_each_token(shared: Path, name: str, kind: str) -> None:
    """The work for a token does not grow: four times the text takes four times the work, within a half."""
    setup = published(shared, name)
    short, long = (setup.push(texts(length)[kind], check_every=97) for length in (500, 2000))
    per_token = [work / tokens for tokens, work in (short, long)]
    assert per_token[1] < 1.5 * per_token[0] + 50


def trained(model: models.Model, pattern: str | None, normalizer: normalizers.Normalizer | None) -> Setup:
    backend = Tokenizer(model)
    if pattern is not None:
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.Fuse()
    return Setup(PreTrainedTokenizerFast(tokenizer_object=backend))


@st.composite
def merged(draw: st.DrawFn) -> models.BPE:
    """BPE with any merges over a small alphabet, which texts over it use often."""
    vocabulary = {letter: number for number, letter in enumerate(ALPHABET)}
    merges: list[tuple[str, str]] = []
    for _ in range(draw(st.integers(0, 14))):
        pair = draw(st.sampled_from(sorted(vocabulary))), draw(st.sampled_from(sorted(vocabulary)))
        if len("".join(pair)) <= 9 and "".join(pair) not in vocabulary:
            vocabulary["".join(pair)] = len(vocabulary)
            merges.append(pair)
    return models.BPE(vocab=vocabulary, merges=merges)


@st.composite
def weighed(draw: st.DrawFn) -> models.Unigram:
    """Unigram with any pieces and weights over the same alphabet, of the precision of SentencePiece's files or not."""
    pieces = set(ALPHABET) | set(draw(st.lists(st.text(ALPHABET, min_size=2, max_size=6), max_size=14)))
    generator = random.Random(draw(st.integers(0, 2**32)))
    single = draw(st.booleans())
    drawn = [generator.uniform(1, 12) for _ in pieces]
    drawn = [float(np.float32(weight)) for weight in drawn] if single else drawn
    weights = {piece: -weight for piece, weight in zip(sorted(pieces), drawn, strict=True)}
    return models.Unigram([("<unk>", -99.0), *weights.items()], unk_id=0)


patterns = st.sampled_from([None, GPT2_PATTERN, LLAMA3_PATTERN, O200K_PATTERN, FROM_THE_RIGHT])
long_text = st.builds(
    lambda pieces, times: "".join(piece * n for piece, n in zip(pieces, times, strict=False)),
    st.lists(st.text(ALPHABET, min_size=1, max_size=4), min_size=3, max_size=12),
    st.lists(st.integers(1, 60), min_size=12, max_size=12),
)


@settings(max_examples=120)
@given(merged() | weighed(), patterns, long_text)
def test_any_vocabulary_and_any_text(model: models.Model, pattern: str | None, text: str) -> None:
    trained(model, pattern, None).push(text[:700], check_every=1)


def bpe(alphabet: str, *merges: tuple[str, str]) -> models.BPE:
    tokens = [*alphabet, *map("".join, merges)]
    return models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=list(merges))


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_line_break_joins_the_whitespace_before_it(width: int) -> None:
    """The pattern puts "\\n" and the spaces behind it into one word as soon as another "\\n" follows."""
    setup = trained(bpe("a \n", ("\n", " "), (" ", " ")), LLAMA3_PATTERN, None)
    for text in ("a\n" + " " * 130 + "\na", ("\n" * width + " " * 120) * 2 + "a"):
        setup.push(text, check_every=1)


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, FROM_THE_RIGHT])
@pytest.mark.parametrize("number", ["11", "12"])
@pytest.mark.parametrize("start", ["", "a", "aa", "9", "99"])
def test_digits_are_counted_in_threes(pattern: str, number: str, start: str) -> None:
    """Where no token of the text has several digits, its tokens do not show where a group of three starts."""
    setup = trained(bpe("129a", (number[0], number[1])), pattern, None)
    for more in range(3):
        setup.push(start + "9" * (130 + more) + number * 9, check_every=1)


@pytest.mark.parametrize("text", ["\n" * 140, "\n" * 120 + "a a", "a a a a"])
def test_wordpiece_writes_a_word_whole_or_not_at_all(text: str) -> None:
    """A word of more than a hundred characters, or with one that has no piece, is one unknown token."""
    pieces = ["[UNK]", *(prefix + letter for letter in "\na " for prefix in ("", "##"))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    trained(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"), GPT2_PATTERN, None).push(
        text, check_every=1
    )


@pytest.mark.parametrize("form", [normalizers.NFC(), normalizers.NFKC(), normalizers.NFD()])
def test_a_normaliser_may_join_or_reorder_characters(form: normalizers.Normalizer) -> None:
    """Accents that come after a place to start again belong to the character before it, in the normaliser's order."""
    letters = "ea가ᄀ"
    vocabulary = {letter: number for number, letter in enumerate("eaéè가ᄀ\u1161\u0301\u0300\u0323à")}
    setup = trained(models.BPE(vocab=vocabulary, merges=[]), None, form)
    draw = random.Random(5)
    text = "".join(
        draw.choice(letters) + "".join(draw.choices("\u0301\u0300\u0323\u1161", k=draw.randrange(9)))
        for _ in range(120)
    )
    setup.push(text, check_every=1)

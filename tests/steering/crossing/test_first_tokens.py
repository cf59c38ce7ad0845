"""How a base's tokens begin in a steering vocabulary."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mapping_cache import CanonicalVocabulary, build_map, canonical_vocabulary
from steering.crossing.encoder import SteeringEncoder
from steering.crossing.first_tokens import FirstTokens
from steering.crossing.history import TextHistory
from tests.models import SAMPLE, tokenizer_byte_level, tokenizer_sentencepiece

MADE = {"sp": tokenizer_sentencepiece, "bl": tokenizer_byte_level}
PAIRS = [("sp", "bl"), ("bl", "sp")]


def made(base: str, steering: str) -> tuple[FirstTokens, CanonicalVocabulary, CanonicalVocabulary]:
    theirs, ours = MADE[base](), MADE[steering]()
    vocabulary, steered = canonical_vocabulary(theirs), canonical_vocabulary(ours)
    found = FirstTokens.of(
        vocabulary, steered, SteeringEncoder(ours, steered), build_map(theirs, ours), torch.device("cpu")
    )
    return found, vocabulary, steered


def is_text(token: bytes | None) -> bool:
    try:
        return bool((token or b"").decode())
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize(("base", "steering"), PAIRS)
def test_a_spelling_begins_as_the_token_does(base: str, steering: str) -> None:
    spelling, theirs, ours = made(base, steering)
    assert len(spelling.first) == len(spelling.exact) == len(theirs)
    longer = alone = 0
    columns = (spelling.first.tolist(), spelling.exact.tolist(), spelling.is_known.tolist())
    for token, first, stem, is_known in zip(theirs.tokens, *columns, strict=True):
        if not token or not is_known:
            assert not is_text(token)
            continue
        beginning = ours.tokens[first]
        assert beginning and token.startswith(beginning)
        if beginning == token:
            assert stem >= 0
            alone += 1
        else:
            longer += 1
        assert stem < 0 or theirs.tokens[stem] == beginning
    assert longer > 10 and alone > 200, "vocabularies too alike or too different to show anything"


@pytest.mark.parametrize(("base", "steering"), PAIRS)
def test_what_is_no_text_is_unknown_or_spelled_as_the_map_has_it(base: str, steering: str) -> None:
    theirs, ours = MADE[base](), MADE[steering]()
    spelling, vocabulary, _ = made(base, steering)
    counterparts = build_map(theirs, ours).ids
    assert spelling.unknown.tolist() == (~spelling.is_known).nonzero().flatten().tolist()
    for number, token in enumerate(vocabulary.tokens):
        if not is_text(token):
            assert bool(spelling.is_known[number]) == (counterparts[number] >= 0)
            assert not spelling.is_known[number] or int(spelling.first[number]) == counterparts[number]


@pytest.mark.parametrize(("base", "steering"), PAIRS)
def test_within_a_text_tokens_begin_as_they_are_spelled(base: str, steering: str) -> None:
    """This holds for tokens that leave the encoding of earlier text as it is. Few merge with letters around them."""
    spelling, theirs, ours = made(base, steering)
    history = TextHistory(theirs, SteeringEncoder(MADE[steering](), ours), {})
    same = other = 0
    for token in MADE[base]().encode(SAMPLE, add_special_tokens=False):
        found = history.continuation(token)
        if is_text(theirs.tokens[token]) and found is not None and found.common == len(history.tokens) > 0:
            same += found.suffix[0] == spelling.first[token]
            other += found.suffix[0] != spelling.first[token]
        history.push(token)
    assert same > 300 and other < 0.02 * same


def test_text_that_cannot_be_written_is_unknown() -> None:
    """The first token of such a text is not the tokenizer's unknown token."""
    words = Tokenizer(models.WordLevel({"[unk]": 0, "the": 1, "lake": 2}, unk_token="[unk]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    ours = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[unk]")
    theirs = tokenizer_byte_level()
    vocabulary, steered = canonical_vocabulary(theirs), canonical_vocabulary(ours)
    spelling = FirstTokens.of(
        vocabulary, steered, SteeringEncoder(ours, steered), build_map(theirs, ours), torch.device("cpu")
    )
    assert 0 < int(spelling.is_known.sum()) < 10
    assert not (spelling.first[spelling.is_known] == 0).any()

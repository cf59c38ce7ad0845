"""Slow tokenizers: surface rules read from the attributes of a Python tokenizer, then checked on text.

A fast tokenizer describes itself completely. A slow one is code: its attributes suggest the rules, and encoding sample
texts shows whether they hold.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mapping_cache.sample_texts import SAMPLE_TEXTS
from mapping_cache.vocabularies.errors import UnsupportedTokenizerError
from mapping_cache.vocabularies.surfaces import METASPACE, SurfaceEncoding, SurfaceRules, byte_alphabet

_END_OF_WORD, _CONTINUING_SUFFIX, _CONTINUING_PREFIX = "</w>", "@@", "##"
# Characters of one to four bytes in UTF-8, and a space, which some tokenizers replace.
_PROBE = "b \u00e9\u6c49\U0001f642"
_TRIED_TOKENS = 200


def read_slow_rules(tokenizer: Any, ids: Mapping[str, int]) -> SurfaceRules:
    """The surface rules of a slow tokenizer; `ids` is its vocabulary, the id of each surface.

    Raises `UnsupportedTokenizerError`, which names the part that is missing or not understood.
    """
    unk_token = getattr(tokenizer, "unk_token", None)
    unk_token = None if unk_token is None else str(unk_token)
    pieces = getattr(tokenizer, "sp_model", None)
    if pieces is not None:
        return _sentencepiece_rules(tokenizer, pieces, unk_token)
    if getattr(tokenizer, "wordpiece_tokenizer", None) is not None:
        return SurfaceRules(
            SurfaceEncoding.WORD,
            dummy_prefix="first",
            continuing_prefix=_CONTINUING_PREFIX,
            unk_token=unk_token,
        )
    if getattr(tokenizer, "bpe_ranks", None) is not None:
        return _bpe_rules(tokenizer, ids, unk_token)
    tokens = tokenizer.tokenize(_PROBE)
    if tokens == list(_PROBE.encode().decode("latin-1")):
        return SurfaceRules(SurfaceEncoding.RAW_BYTES, unk_token=unk_token)
    if tokens == list(_PROBE):
        return SurfaceRules(SurfaceEncoding.PLAIN, unk_token=unk_token)
    raise UnsupportedTokenizerError(
        "model",
        f"{type(tokenizer).__name__} has no SentencePiece model, no WordPiece model and no merges, and its tokens are "
        "neither bytes nor characters",
    )


def slow_specials(tokenizer: Any, ids: Mapping[str, int]) -> set[int]:
    """Ids of the pieces that a SentencePiece model marks as control or unknown; empty for other tokenizers."""
    pieces = getattr(tokenizer, "sp_model", None)
    if pieces is None:
        return set()
    marked = (piece for piece in range(len(pieces)) if pieces.IsControl(piece) or pieces.IsUnknown(piece))
    return {ids[surface] for surface in map(pieces.IdToPiece, marked) if surface in ids}


def check_round_trip(tokenizer: Any, tokens: Sequence[bytes | None]) -> None:
    """Encodes texts and checks that the bytes of their tokens are those texts; `tokens[i]` is the bytes of id `i`.

    The comparison ignores case, accents, compatibility forms and spaces, since a normalizer may change them. A text
    with a part that is unknown to the tokenizer is skipped. Raises `UnsupportedTokenizerError` on a difference.
    """
    for text in _texts(tokens):
        ids = tokenizer.encode(text, add_special_tokens=False)
        # Some tokenizers without an unknown token give None instead of an id.
        pieces = [tokens[token] if token is not None and token < len(tokens) else None for token in ids]
        if None in pieces:
            continue
        joined = b"".join(piece for piece in pieces if piece is not None).decode(errors="replace")
        if _normalized(joined) != _normalized(text):
            raise UnsupportedTokenizerError(
                "model", f"the tokens of {text[:40]!r} seem to stand for {joined[:40]!r}"
            )


def _sentencepiece_rules(tokenizer: Any, pieces: Any, unk_token: str | None) -> SurfaceRules:
    # The tokenizer may override the model's own setting, so encoding "a" shows whether it adds a dummy prefix.
    first = tokenizer.tokenize("a")[:1]
    return SurfaceRules(
        SurfaceEncoding.METASPACE,
        byte_fallback=any(pieces.IsByte(piece) for piece in range(len(pieces))),
        dummy_prefix="always" if first and first[0].startswith(METASPACE) else "none",
        unk_token=unk_token,
    )


def _bpe_rules(tokenizer: Any, ids: Mapping[str, int], unk_token: str | None) -> SurfaceRules:
    """The rules of a vocabulary with a list of merges: over bytes or characters, with or without end-of-word marks."""
    alphabet = getattr(tokenizer, "byte_encoder", None)
    if alphabet is not None and {character: byte for byte, character in alphabet.items()} != byte_alphabet():
        raise UnsupportedTokenizerError("byte_encoder", "it is not the usual alphabet of byte-level BPE")
    marks = {
        mark: sum(surface.endswith(mark) for surface in ids) for mark in (_END_OF_WORD, _CONTINUING_SUFFIX)
    }
    return SurfaceRules(
        SurfaceEncoding.PLAIN if alphabet is None else SurfaceEncoding.BYTE_LEVEL,
        end_of_word=_END_OF_WORD if marks[_END_OF_WORD] else "",
        # A few tokens may end in "@@" by chance; as a mark it stands on far more than 5% of a vocabulary.
        continuing_suffix=_CONTINUING_SUFFIX if marks[_CONTINUING_SUFFIX] > 0.05 * len(ids) else "",
        unk_token=unk_token,
    )


def _texts(tokens: Sequence[bytes | None]) -> Iterator[str]:
    """The sample texts, their words, and about 200 tokens of the vocabulary, each written twice."""
    for sample in SAMPLE_TEXTS.values():
        yield sample
        yield from sample.split()
    pieces = [piece for piece in tokens if piece]
    for piece in pieces[:: max(1, len(pieces) // _TRIED_TOKENS)]:
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            continue  # the token is part of a character
        yield f"{text}{text}"


def _normalized(text: str) -> str:
    """`text` without case, spaces, accents (Mn), and control and format characters (Cc, Cf), in NFKD."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(
        c for c in decomposed if not (c.isspace() or unicodedata.category(c) in ("Mn", "Cc", "Cf"))
    )

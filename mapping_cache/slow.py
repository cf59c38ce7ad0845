"""Slow tokenizers: Python code whose parts are attributes, and whose reading is checked against what it does.

A fast tokenizer describes itself completely; a slow one only runs. So what its parts promise is tried out on text
before it is believed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mapping_cache.errors import UnsupportedTokenizerError
from mapping_cache.parts import METASPACE, Spelling, TokenizerParts, byte_alphabet
from mapping_cache.samples import SAMPLES

_END_OF_WORD, _CONTINUING_SUFFIX, _CONTINUING_PREFIX = "</w>", "@@", "##"
# Characters of one to four bytes and a space, which some write otherwise.
_PROBE = "b \u00e9\u6c49\U0001f642"
_TRIED_TOKENS = 200


def read_slow_parts(tokenizer: Any, ids: Mapping[str, int]) -> TokenizerParts:
    """How a slow tokenizer's surfaces spell bytes; `ids` is its vocabulary.

    Raises `UnsupportedTokenizerError` naming the part that is missing or not understood.
    """
    unk_token = getattr(tokenizer, "unk_token", None)
    unk_token = None if unk_token is None else str(unk_token)
    pieces = getattr(tokenizer, "sp_model", None)
    if pieces is not None:
        return _sentencepiece_parts(tokenizer, pieces, unk_token)
    if getattr(tokenizer, "wordpiece_tokenizer", None) is not None:
        return TokenizerParts(
            Spelling.WORD, dummy_prefix="first", continuing_prefix=_CONTINUING_PREFIX, unk_token=unk_token
        )
    if getattr(tokenizer, "bpe_ranks", None) is not None:
        return _merged_parts(tokenizer, ids, unk_token)
    tokens = tokenizer.tokenize(_PROBE)
    if tokens == list(_PROBE.encode().decode("latin-1")):
        return TokenizerParts(Spelling.RAW_BYTES, unk_token=unk_token)
    if tokens == list(_PROBE):
        return TokenizerParts(Spelling.PLAIN, unk_token=unk_token)
    raise UnsupportedTokenizerError(
        "model",
        f"{type(tokenizer).__name__} has no SentencePiece model, no WordPiece model and no merges, and its tokens are "
        "neither bytes nor characters",
    )


def slow_specials(tokenizer: Any, ids: Mapping[str, int]) -> set[int]:
    """Ids of the pieces that a SentencePiece model itself marks as control or unknown."""
    pieces = getattr(tokenizer, "sp_model", None)
    if pieces is None:
        return set()
    marked = (piece for piece in range(len(pieces)) if pieces.IsControl(piece) or pieces.IsUnknown(piece))
    return {ids[surface] for surface in map(pieces.IdToPiece, marked) if surface in ids}


def check_spelling(tokenizer: Any, tokens: Sequence[bytes | None]) -> None:
    """Encodes text and raises `UnsupportedTokenizerError` where the tokens' bytes are not that text.

    Case, accents, compatibility forms and spaces do not count, since a normaliser may change them; nor does a text of
    which the tokenizer does not know a part.
    """
    for text in _texts(tokens):
        ids = tokenizer.encode(text, add_special_tokens=False)
        # Where there is no unknown token, some give None for what they do not know.
        spelled = [tokens[token] if token is not None and token < len(tokens) else None for token in ids]
        if None in spelled:
            continue
        joined = b"".join(piece for piece in spelled if piece is not None).decode(errors="replace")
        if _bare(joined) != _bare(text):
            raise UnsupportedTokenizerError(
                "model", f"the tokens of {text[:40]!r} seem to stand for {joined[:40]!r}"
            )


def _sentencepiece_parts(tokenizer: Any, pieces: Any, unk_token: str | None) -> TokenizerParts:
    # The tokenizer may override the model's own setting, so it is tried out: "a" behind a dummy prefix or not.
    first = tokenizer.tokenize("a")[:1]
    return TokenizerParts(
        Spelling.METASPACE,
        byte_fallback=any(pieces.IsByte(piece) for piece in range(len(pieces))),
        dummy_prefix="always" if first and first[0].startswith(METASPACE) else "none",
        unk_token=unk_token,
    )


def _merged_parts(tokenizer: Any, ids: Mapping[str, int], unk_token: str | None) -> TokenizerParts:
    """A vocabulary and a list of merges: over bytes or characters, with or without marks at the end of words."""
    alphabet = getattr(tokenizer, "byte_encoder", None)
    if alphabet is not None and {character: byte for byte, character in alphabet.items()} != byte_alphabet():
        raise UnsupportedTokenizerError("byte_encoder", "it is not the usual alphabet of byte-level BPE")
    marks = {
        mark: sum(surface.endswith(mark) for surface in ids) for mark in (_END_OF_WORD, _CONTINUING_SUFFIX)
    }
    return TokenizerParts(
        Spelling.PLAIN if alphabet is None else Spelling.BYTE_LEVEL,
        end_of_word=_END_OF_WORD if marks[_END_OF_WORD] else "",
        # One token may well be an address; a mark stands on a good part of a vocabulary.
        continuing_suffix=_CONTINUING_SUFFIX if marks[_CONTINUING_SUFFIX] > 0.05 * len(ids) else "",
        unk_token=unk_token,
    )


def _texts(tokens: Sequence[bytes | None]) -> Iterator[str]:
    """Samples of several languages, and what single tokens stand for."""
    for sample in SAMPLES.values():
        yield sample
        yield from sample.split()
    spelled = [piece for piece in tokens if piece]
    for piece in spelled[:: max(1, len(spelled) // _TRIED_TOKENS)]:
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            continue  # part of a character
        yield f"{text}{text}"


def _bare(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(
        c for c in decomposed if not (c.isspace() or unicodedata.category(c) in ("Mn", "Cc", "Cf"))
    )

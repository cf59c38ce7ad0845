"""Surfaces: tokens as a tokenizer's vocabulary writes them, and the rules that turn them into bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from mapping_cache.vocabularies.errors import UnsupportedTokenizerError

METASPACE = "\u2581"
"""The character that SentencePiece writes for a space."""

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
"""The surface of a byte-fallback token, such as `<0x41>`."""


class SurfaceEncoding(Enum):
    """How a surface encodes the bytes of its token.

    BYTE_LEVEL: one printable character per byte, in GPT-2's alphabet; METASPACE: UTF-8 text with U+2581 for a space;
    WORD: a word without the space before it; PLAIN: the text itself; RAW_BYTES: one Latin-1 character per byte.
    """

    BYTE_LEVEL = "byte-level"
    METASPACE = "metaspace"
    WORD = "word"
    PLAIN = "plain"
    RAW_BYTES = "raw bytes"


@dataclass(frozen=True, slots=True)
class SurfaceRules:
    """How a tokenizer's surfaces are turned into bytes.

    `byte_fallback`: surfaces such as `<0x41>` stand for one byte.
    `dummy_prefix`: where the tokenizer adds a leading space: "none", "first" (start of the text) or "always"
    (start of every stretch of text between special tokens).
    `continuing_prefix`: marks a token that continues a word, WordPiece's "##"; "" where there is none.
    `end_of_word`: marks a token that ends a word ("</w>"), so that a space follows; "" where there is none.
    `continuing_suffix`: marks a token that does not end a word ("@@"); a space follows every other token. "" where
    there is none.
    `unk_token`: the surface of the model's unknown token, if it has one.
    """

    encoding: SurfaceEncoding
    byte_fallback: bool = False
    dummy_prefix: str = "none"
    continuing_prefix: str = ""
    end_of_word: str = ""
    continuing_suffix: str = ""
    unk_token: str | None = None


def byte_alphabet() -> dict[str, int]:
    """The byte that each character of byte-level BPE's alphabet stands for (Radford et al., 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    spare = 0x100
    for byte in range(0x100):
        if chr(byte) not in alphabet:
            alphabet[chr(spare)] = byte
            spare += 1
    return alphabet


def surface_bytes(surface: str, rules: SurfaceRules, alphabet: Mapping[str, int]) -> bytes:
    """The bytes of an ordinary token (not special, not byte fallback, not added); `alphabet` is `byte_alphabet()`.

    Raises `UnsupportedTokenizerError` on a surface that does not fit the rules.
    """
    if rules.end_of_word and surface.endswith(rules.end_of_word):
        return _unmarked_bytes(surface.removesuffix(rules.end_of_word), rules, alphabet) + b" "
    if rules.continuing_suffix:
        if surface.endswith(rules.continuing_suffix):
            return _unmarked_bytes(surface.removesuffix(rules.continuing_suffix), rules, alphabet)
        return _unmarked_bytes(surface, rules, alphabet) + b" "
    return _unmarked_bytes(surface, rules, alphabet)


def utf8(text: str) -> bytes:
    """`text` in UTF-8, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def _unmarked_bytes(surface: str, rules: SurfaceRules, alphabet: Mapping[str, int]) -> bytes:
    """The bytes of a surface without its end-of-word mark or continuing suffix."""
    if rules.encoding is SurfaceEncoding.BYTE_LEVEL:
        try:
            return bytes([alphabet[character] for character in surface])
        except KeyError:
            return utf8(surface)  # the decoder writes such a token unchanged
    if rules.encoding is SurfaceEncoding.RAW_BYTES:
        try:
            return surface.encode("latin-1")
        except UnicodeEncodeError:
            raise UnsupportedTokenizerError("model", f"{surface!r} is not one of 256 bytes") from None
    if rules.encoding is SurfaceEncoding.METASPACE:
        return utf8(surface.replace(METASPACE, " "))
    prefix = rules.continuing_prefix
    if prefix and surface.startswith(prefix):
        return utf8(surface.removeprefix(prefix))
    return utf8(f" {surface}" if rules.encoding is SurfaceEncoding.WORD else surface)

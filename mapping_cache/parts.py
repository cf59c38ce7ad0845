"""Reads a tokenizer's own parts and says how its tokens spell bytes.

The family is found from the model, the decoder, the normaliser and the pre-tokenizer together, never from
the tokenizer's name: two checkpoints of one name may differ in exactly these parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mapping_cache.errors import UnsupportedTokenizerError

METASPACE = "\u2581"
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")

_MODELS = {"BPE", "Unigram", "WordPiece", "WordLevel"}
_DECODERS = {"ByteLevel", "Metaspace", "WordPiece", "BPEDecoder", "Replace", "ByteFallback", "Fuse", "Strip"}
_PRE_TOKENIZERS = {
    "ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "UnicodeScripts", "FixedLength",
    "Whitespace", "WhitespaceSplit", "BertPreTokenizer",
}  # fmt: skip
_SPACE_DROPPING = {"Whitespace", "WhitespaceSplit", "BertPreTokenizer"}


class Spelling(Enum):
    """How a token's surface spells the bytes it stands for."""

    BYTE_LEVEL = "byte-level"
    METASPACE = "metaspace"
    WORD = "word"
    PLAIN = "plain"
    RAW_BYTES = "raw bytes"


@dataclass(frozen=True, slots=True)
class TokenizerParts:
    """What the canonical vocabulary needs to know of a tokenizer.

    `dummy_prefix` is "none", "first" or "always"; `continuing_prefix` is WordPiece's "##". A space follows a token that
    ends in `end_of_word` ("</w>"), or one that does not end in `continuing_suffix` ("@@"); "" where there is none.
    """

    spelling: Spelling
    byte_fallback: bool = False
    dummy_prefix: str = "none"
    continuing_prefix: str = ""
    end_of_word: str = ""
    continuing_suffix: str = ""
    unk_token: str | None = None


def read_parts(backend: Any) -> TokenizerParts:
    """The parts of a `tokenizers.Tokenizer`.

    Raises `UnsupportedTokenizerError` naming the part that is not understood.
    """
    model_type = type(backend.model).__name__
    if model_type not in _MODELS:
        raise UnsupportedTokenizerError("model", f"{model_type} is not one of {sorted(_MODELS)}")
    end_of_word = getattr(backend.model, "end_of_word_suffix", None) or ""
    continuing_prefix = getattr(backend.model, "continuing_subword_prefix", None) or ""
    normalizers = list(_flat(_state(backend.normalizer, "normalizer"), "normalizers"))
    pre_tokenizers = list(_flat(_state(backend.pre_tokenizer, "pre_tokenizer"), "pretokenizers"))
    decoders = list(_flat(_state(backend.decoder, "decoder"), "decoders"))
    _check_known(decoders, _DECODERS, "decoder")
    _check_known(pre_tokenizers, _PRE_TOKENIZERS, "pre_tokenizer")
    _check_end_of_word(decoders, pre_tokenizers, end_of_word)
    spelling = _spelling(model_type, normalizers, pre_tokenizers, decoders, continuing_prefix)
    if spelling in (Spelling.METASPACE, Spelling.PLAIN):
        _check_replacements(decoders)
    if spelling is Spelling.PLAIN:
        _check_keeps_text([] if end_of_word else pre_tokenizers, decoders)
    has_byte_decoder = any(part["type"] == "ByteFallback" for part in decoders)
    return TokenizerParts(
        spelling=spelling,
        byte_fallback=has_byte_decoder or bool(getattr(backend.model, "byte_fallback", False)),
        dummy_prefix=_dummy_prefix(spelling, normalizers, pre_tokenizers),
        continuing_prefix=continuing_prefix,
        end_of_word=end_of_word,
        unk_token=getattr(backend.model, "unk_token", None),
    )


def byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's printable character for each of the 256 bytes, inverted (Radford et al., 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    spare = 0x100
    for byte in range(0x100):
        if chr(byte) not in alphabet:
            alphabet[chr(spare)] = byte
            spare += 1
    return alphabet


def _state(part: Any, name: str) -> dict[str, Any] | None:
    if part is None:
        return None
    try:
        state = json.loads(part.__getstate__())
    except Exception as error:
        raise UnsupportedTokenizerError(name, "it is custom code that cannot be read") from error
    if not isinstance(state, dict):
        raise UnsupportedTokenizerError(name, "its description cannot be read")
    return state


def _flat(part: Mapping[str, Any] | None, children: str) -> Iterator[Mapping[str, Any]]:
    if part is None:
        return
    if part["type"] != "Sequence":
        yield part
        return
    for child in part[children]:
        yield from _flat(child, children)


def _check_known(parts: list[Mapping[str, Any]], known: set[str], name: str) -> None:
    for part in parts:
        if part["type"] not in known:
            raise UnsupportedTokenizerError(name, f"{part['type']} is not one of {sorted(known)}")


def _check_replacements(decoders: list[Mapping[str, Any]]) -> None:
    for part in decoders:
        if part["type"] == "Replace" and (part["pattern"], part["content"]) != ({"String": METASPACE}, " "):
            raise UnsupportedTokenizerError("decoder", f"Replace of {part['pattern']} by {part['content']!r}")
        if part["type"] == "Metaspace" and part["replacement"] != METASPACE:
            raise UnsupportedTokenizerError("decoder", f"Metaspace with {part['replacement']!r}")


def _check_end_of_word(
    decoders: list[Mapping[str, Any]], pre_tokenizers: list[Mapping[str, Any]], end_of_word: str
) -> None:
    for part in decoders:
        if part["type"] == "BPEDecoder" and part["suffix"] != end_of_word:
            raise UnsupportedTokenizerError(
                "decoder", f"BPEDecoder with {part['suffix']!r} where the model has {end_of_word!r}"
            )
    drops_spaces = any(
        part["type"] in _SPACE_DROPPING or part.get("behavior") == "Removed" for part in pre_tokenizers
    )
    if end_of_word and not drops_spaces:
        raise UnsupportedTokenizerError(
            "pre_tokenizer",
            f"the model ends words with {end_of_word!r}, but the spaces after them are kept too",
        )


def _check_keeps_text(pre_tokenizers: list[Mapping[str, Any]], decoders: list[Mapping[str, Any]]) -> None:
    if any(part["type"] == "Strip" for part in decoders):
        raise UnsupportedTokenizerError("decoder", "Strip drops text that a token holds")
    for part in pre_tokenizers:
        if part["type"] in _SPACE_DROPPING or part.get("behavior") == "Removed":
            raise UnsupportedTokenizerError("pre_tokenizer", f"{part['type']} drops text that no token holds")


def _spelling(
    model_type: str,
    normalizers: list[Mapping[str, Any]],
    pre_tokenizers: list[Mapping[str, Any]],
    decoders: list[Mapping[str, Any]],
    continuing_prefix: str,
) -> Spelling:
    encoding = {part["type"] for part in [*normalizers, *pre_tokenizers]}
    decoding = {part["type"] for part in decoders}
    if "ByteLevel" in decoding | encoding:
        if "Metaspace" in decoding | encoding:
            raise UnsupportedTokenizerError("pre_tokenizer", "both ByteLevel and Metaspace")
        return Spelling.BYTE_LEVEL
    if model_type == "WordPiece" or "WordPiece" in decoding:
        return Spelling.WORD
    writes_metaspace = any(p["type"] == "Replace" and p["content"] == METASPACE for p in normalizers)
    reads_metaspace = any(
        p["type"] == "Replace" and p["pattern"].get("String") == METASPACE for p in decoders
    )
    if "Metaspace" in decoding | encoding or writes_metaspace or reads_metaspace:
        return Spelling.METASPACE
    if encoding & _SPACE_DROPPING and (model_type == "WordLevel" or continuing_prefix):
        return Spelling.WORD
    return Spelling.PLAIN


def _dummy_prefix(
    spelling: Spelling, normalizers: list[Mapping[str, Any]], pre_tokenizers: list[Mapping[str, Any]]
) -> str:
    if spelling is Spelling.WORD:
        return "first"
    for part in normalizers:
        if part["type"] == "Prepend":
            if part["prepend"] not in (" ", METASPACE):
                raise UnsupportedTokenizerError("normalizer", f"Prepend of {part['prepend']!r}")
            return "always"
    for part in pre_tokenizers:
        if part["type"] == "Metaspace":
            scheme = str(part.get("prepend_scheme", "always"))
            return "none" if scheme == "never" else scheme
    return "none"

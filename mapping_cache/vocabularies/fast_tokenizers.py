"""Fast tokenizers: surface rules read from the parts of a `tokenizers.Tokenizer`.

The rules follow from the model, the decoder, the normalizer and the pre-tokenizer together, never from the tokenizer's
name: two checkpoints of the same name may differ in exactly these parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mapping_cache.vocabularies.errors import UnsupportedTokenizerError
from mapping_cache.vocabularies.surfaces import METASPACE, SurfaceEncoding, SurfaceRules

_MODELS = {"BPE", "Unigram", "WordPiece", "WordLevel"}
_DECODERS = {"ByteLevel", "Metaspace", "WordPiece", "BPEDecoder", "Replace", "ByteFallback", "Fuse", "Strip"}
_PRE_TOKENIZERS = {
    "ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "UnicodeScripts", "FixedLength",
    "Whitespace", "WhitespaceSplit", "BertPreTokenizer",
}  # fmt: skip
_SPACE_DROPPING = {"Whitespace", "WhitespaceSplit", "BertPreTokenizer"}


def read_fast_rules(backend: Any) -> SurfaceRules:
    """The surface rules of a `tokenizers.Tokenizer`.

    Raises `UnsupportedTokenizerError`, which names the part that is not understood.
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
    encoding = _encoding(model_type, normalizers, pre_tokenizers, decoders, continuing_prefix)
    if encoding in (SurfaceEncoding.METASPACE, SurfaceEncoding.PLAIN):
        _check_replacements(decoders)
    if encoding is SurfaceEncoding.PLAIN:
        _check_keeps_text([] if end_of_word else pre_tokenizers, decoders)
    has_byte_decoder = any(part["type"] == "ByteFallback" for part in decoders)
    return SurfaceRules(
        encoding=encoding,
        byte_fallback=has_byte_decoder or bool(getattr(backend.model, "byte_fallback", False)),
        dummy_prefix=_dummy_prefix(encoding, normalizers, pre_tokenizers),
        continuing_prefix=continuing_prefix,
        end_of_word=end_of_word,
        unk_token=getattr(backend.model, "unk_token", None),
    )


def _state(part: Any, name: str) -> dict[str, Any] | None:
    """A part's settings, as its JSON state gives them; `None` where the tokenizer has no such part."""
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
    """The parts of nested sequences in order; `children` is the key of a sequence's own parts."""
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
    """Refuses decoders that replace anything but U+2581 by a space."""
    for part in decoders:
        if part["type"] == "Replace" and (part["pattern"], part["content"]) != ({"String": METASPACE}, " "):
            raise UnsupportedTokenizerError("decoder", f"Replace of {part['pattern']} by {part['content']!r}")
        if part["type"] == "Metaspace" and part["replacement"] != METASPACE:
            raise UnsupportedTokenizerError("decoder", f"Metaspace with {part['replacement']!r}")


def _check_end_of_word(
    decoders: list[Mapping[str, Any]], pre_tokenizers: list[Mapping[str, Any]], end_of_word: str
) -> None:
    """Refuses end-of-word marks that the decoder reads differently, or beside which spaces are tokens too."""
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
    """Refuses parts that drop text, so that the tokens would not add up to it."""
    if any(part["type"] == "Strip" for part in decoders):
        raise UnsupportedTokenizerError("decoder", "Strip drops text that a token holds")
    for part in pre_tokenizers:
        if part["type"] in _SPACE_DROPPING or part.get("behavior") == "Removed":
            raise UnsupportedTokenizerError("pre_tokenizer", f"{part['type']} drops text that no token holds")


def _encoding(
    model_type: str,
    normalizers: list[Mapping[str, Any]],
    pre_tokenizers: list[Mapping[str, Any]],
    decoders: list[Mapping[str, Any]],
    continuing_prefix: str,
) -> SurfaceEncoding:
    """The encoding that the parts have in common; `PLAIN` where none of them changes the text."""
    encoder_types = {part["type"] for part in [*normalizers, *pre_tokenizers]}
    decoder_types = {part["type"] for part in decoders}
    if "ByteLevel" in decoder_types | encoder_types:
        if "Metaspace" in decoder_types | encoder_types:
            raise UnsupportedTokenizerError("pre_tokenizer", "both ByteLevel and Metaspace")
        return SurfaceEncoding.BYTE_LEVEL
    if model_type == "WordPiece" or "WordPiece" in decoder_types:
        return SurfaceEncoding.WORD
    writes_metaspace = any(p["type"] == "Replace" and p["content"] == METASPACE for p in normalizers)
    reads_metaspace = any(
        p["type"] == "Replace" and p["pattern"].get("String") == METASPACE for p in decoders
    )
    if "Metaspace" in decoder_types | encoder_types or writes_metaspace or reads_metaspace:
        return SurfaceEncoding.METASPACE
    if encoder_types & _SPACE_DROPPING and (model_type == "WordLevel" or continuing_prefix):
        return SurfaceEncoding.WORD
    return SurfaceEncoding.PLAIN


def _dummy_prefix(
    encoding: SurfaceEncoding, normalizers: list[Mapping[str, Any]], pre_tokenizers: list[Mapping[str, Any]]
) -> str:
    """Where a leading space is added to the text: "none", "first" or "always"."""
    if encoding is SurfaceEncoding.WORD:
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

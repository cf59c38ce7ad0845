"""The text that base tokens stand for, and the steering tokenizer's encoding of it."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from mapping_cache import CanonicalVocabulary, VocabularyMap


def complete_text(data: bytes, *, final: bool = False) -> str:
    """The complete UTF-8 characters of `data`; an incomplete one at the end is left out unless `final`."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data, final)


def ends_inside_character(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return bool(decoder.getstate()[0])


def segments(vocabulary: CanonicalVocabulary, ids: Sequence[int]) -> list[int | bytes]:
    """Base tokens as the ids of special tokens and the bytes between them, without dummy leading spaces."""
    parts: list[int | bytes] = []
    for token in ids:
        data = vocabulary.tokens[token]
        last = parts[-1] if parts else None
        if data is None:
            parts.append(token)
        elif isinstance(last, bytes):
            parts[-1] = last + data
        else:
            parts.append(data)
    first = True
    for place, part in enumerate(parts):
        if isinstance(part, bytes):
            if vocabulary.dummy_prefix == "always" or (vocabulary.dummy_prefix == "first" and first):
                parts[place] = part[1:] if part.startswith(b" ") else part
            first = False
    return parts


def last_bytes(vocabulary: CanonicalVocabulary, ids: Sequence[int]) -> bytes:
    """The bytes after the last special token; empty where a special token comes last."""
    last = segments(vocabulary, ids)[-1]
    return last if isinstance(last, bytes) else b""


def history(
    base: CanonicalVocabulary,
    steering: PreTrainedTokenizerBase,
    mapped: VocabularyMap,
    ids: Sequence[int],
    *,
    by_text: bool = False,
) -> list[int]:
    """The steering tokenizer's own encoding of the text that the base's `ids` stand for.

    Where both vocabularies are the same, the ids themselves unless `by_text`.
    """
    if mapped.is_identity and not by_text:
        return list(ids)
    encoded: list[int] = list(steering.encode(""))
    parts = segments(base, ids)
    for place, part in enumerate(parts):
        if isinstance(part, bytes):
            text = complete_text(part, final=place < len(parts) - 1)
            encoded += (
                steering.encode(text, add_special_tokens=False, split_special_tokens=True) if text else []
            )
        elif mapped.ids[part] >= 0:
            special = int(mapped.ids[part])
            if not (place == 0 and encoded == [special]):
                encoded.append(special)
    return encoded

"""Checks that a steering tokenizer writes any text, in a bounded number of tokens."""

from __future__ import annotations

import json
import math
from typing import Any

from steering.errors import AdapterLoadError

# The two planes that nearly all text is from, and a sample of the others. Without surrogates, which no text has.
_CODE_POINTS = (
    *range(1, 0xD800),
    *range(0xE000, 0x20000),
    *range(0x20000, 0x110000, 64),
)
_PIECE = 1024
_MAX_TOKENS = 16
"""The most tokens for one character. Four bytes of fallback, a normaliser's longest decomposition, and room."""
_MAX_REPLACEMENT = 64
"""The most characters that a tokenizer's replacements may make of one."""


def check_tokenizer(tokenizer: Any) -> None:
    """Raise AdapterLoadError for a tokenizer that cannot write some character, or writes far too many tokens for it.

    Also for one that is not deterministic: a history must always be the same encoding of a text.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        _check_parts(json.loads(backend.to_str()))
    for start in range(0, len(_CODE_POINTS), _PIECE):
        piece = _CODE_POINTS[start : start + _PIECE]
        if not _writes("".join(map(chr, piece)), tokenizer):
            wrong = next((point for point in piece if not _writes(chr(point), tokenizer)), piece[0])
            raise AdapterLoadError(f"its tokenizer cannot write U+{wrong:04X}, which a text may hold")


def _check_parts(parts: dict[str, Any]) -> None:
    if parts["model"].get("dropout"):
        raise AdapterLoadError("its tokenizer has dropout, so that a text has no one encoding")
    grown = math.prod(_growth(parts.get(name)) for name in ("normalizer", "pre_tokenizer"))
    if grown > _MAX_REPLACEMENT:
        raise AdapterLoadError(f"its tokenizer replaces one character by up to {grown}")


def _growth(part: Any) -> int:
    """The most characters that a normaliser's or pre-tokenizer's replacements make of one."""
    if not isinstance(part, dict):
        return 1
    inner = [*(part.get("normalizers") or ()), *(part.get("pretokenizers") or ())]
    own = len(part["content"]) if part.get("type") == "Replace" else 1
    return max(own, 1) * math.prod(map(_growth, inner))


def _writes(text: str, tokenizer: Any) -> bool:
    try:
        tokens = tokenizer.encode(text, add_special_tokens=False, verbose=False)
    except Exception:  # noqa: BLE001 - the tokenizers library raises plain Exception
        return False
    return len(tokens) <= _MAX_TOKENS * (len(text) + 1)

"""How a single token is written in a reply's logprobs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mapping_cache import CanonicalVocabulary
from steering.types import TokenLogprob

_LEAST_LOGPROB = -9999.0
"""JSON has no infinity; the customary stand-in for the logprob of what cannot happen."""


def finite(value: float) -> float:
    """`value`, or a large finite number in place of what JSON cannot hold."""
    if math.isfinite(value):
        return value
    return -_LEAST_LOGPROB if value > 0 else _LEAST_LOGPROB


def token_bytes(vocabulary: CanonicalVocabulary, token_id: int) -> bytes | None:
    """The bytes that a token stands for; a special token's surface; None for an id without either."""
    if token_id in vocabulary.specials:
        return vocabulary.specials[token_id].encode()
    return vocabulary.tokens[token_id] if 0 <= token_id < len(vocabulary) else None


def token_text(vocabulary: CanonicalVocabulary, token_id: int) -> str:
    """A token as text that tells it from others: half a character becomes `bytes:\\xe2\\x82`."""
    content = token_bytes(vocabulary, token_id)
    if content is None:
        return f"<token {token_id}>"
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


@dataclass(frozen=True, slots=True)
class PlacedToken:
    """A generated or prompt token and where its text begins in the reply's text.

    `logprob` is None for the first prompt token, which nothing precedes.
    """

    token_id: int
    offset: int
    logprob: TokenLogprob | None

"""What a tokenizer holds: its tokens as it writes them, which are special, and the parts that say how to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from mapping_cache.errors import UnsupportedTokenizerError
from mapping_cache.parts import TokenizerParts, read_parts
from mapping_cache.slow import read_slow_parts, slow_specials

_SLOW_METHODS = ("get_vocab", "tokenize", "encode")


@dataclass(frozen=True, slots=True)
class Inventory:
    """A tokenizer's tokens before they are spelled as bytes.

    `ids` by surface, added tokens included; `special` ids stand for no text; `verbatim` ids are added tokens that the
    tokenizer finds in the text as they are. `slow` tokenizers are Python code that nothing describes.
    """

    parts: TokenizerParts
    ids: Mapping[str, int]
    special: frozenset[int]
    verbatim: frozenset[int]
    slow: bool


def read_inventory(tokenizer: Any) -> Inventory:
    """Reads a Hugging Face tokenizer, fast or slow, or a bare `tokenizers.Tokenizer`.

    Raises `UnsupportedTokenizerError` naming the part that is not understood.
    """
    backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Tokenizer):
        return _read_fast(tokenizer, backend)
    if all(callable(getattr(tokenizer, method, None)) for method in _SLOW_METHODS):
        return _read_slow(tokenizer)
    name = type(tokenizer).__name__
    raise UnsupportedTokenizerError("backend", f"{name} is no tokenizer of transformers or tokenizers")


def _read_fast(tokenizer: Any, backend: Tokenizer) -> Inventory:
    parts = read_parts(backend)
    ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    models_own: dict[str, int] = backend.get_vocab(with_added_tokens=False)
    added = backend.get_added_tokens_decoder()
    special = {token for token, entry in added.items() if entry.special}
    return Inventory(
        parts,
        ids,
        frozenset(special | _named(tokenizer, parts, ids)),
        frozenset(token for token, entry in added.items() if entry.content not in models_own),
        slow=False,
    )


def _read_slow(tokenizer: Any) -> Inventory:
    ids: dict[str, int] = tokenizer.get_vocab()
    parts = read_slow_parts(tokenizer, ids)
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    special = {token for token, entry in added.items() if entry.special} | slow_specials(tokenizer, ids)
    return Inventory(
        parts, ids, frozenset(special | _named(tokenizer, parts, ids)), frozenset(added), slow=True
    )


def _named(tokenizer: Any, parts: TokenizerParts, ids: Mapping[str, int]) -> set[int]:
    """Ids that the tokenizer itself names as special, besides those flagged in its vocabulary."""
    named = {str(surface) for surface in getattr(tokenizer, "all_special_tokens", None) or ()}
    if parts.unk_token:
        named.add(parts.unk_token)
    return {ids[surface] for surface in named if surface in ids}

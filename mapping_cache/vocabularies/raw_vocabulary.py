"""Reads a tokenizer's vocabulary unchanged: surfaces, special tokens, and the rules that turn surfaces into bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from mapping_cache.vocabularies.errors import UnsupportedTokenizerError
from mapping_cache.vocabularies.fast_tokenizers import read_fast_rules
from mapping_cache.vocabularies.slow_tokenizers import read_slow_rules, slow_specials
from mapping_cache.vocabularies.surfaces import SurfaceRules

_SLOW_METHODS = ("get_vocab", "tokenize", "encode")


@dataclass(frozen=True, slots=True)
class RawVocabulary:
    """A tokenizer's tokens before they are turned into bytes.

    `ids`: the id of each surface, added tokens included. `special`: ids of tokens that stand for no text. `verbatim`:
    ids of added tokens, which the tokenizer looks for in the text before its own rules apply. `slow`: whether the
    tokenizer is Python code, which does not describe itself completely.
    """

    rules: SurfaceRules
    ids: Mapping[str, int]
    special: frozenset[int]
    verbatim: frozenset[int]
    slow: bool


def read_raw_vocabulary(tokenizer: Any) -> RawVocabulary:
    """Reads a Hugging Face tokenizer, fast or slow, or a bare `tokenizers.Tokenizer`.

    Raises `UnsupportedTokenizerError`, which names the part that is not understood.
    """
    backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Tokenizer):
        return _read_fast(tokenizer, backend)
    if all(callable(getattr(tokenizer, method, None)) for method in _SLOW_METHODS):
        return _read_slow(tokenizer)
    name = type(tokenizer).__name__
    raise UnsupportedTokenizerError("backend", f"{name} is no tokenizer of transformers or tokenizers")


def _read_fast(tokenizer: Any, backend: Tokenizer) -> RawVocabulary:
    rules = read_fast_rules(backend)
    ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    models_own: dict[str, int] = backend.get_vocab(with_added_tokens=False)
    added = backend.get_added_tokens_decoder()
    special = {token for token, entry in added.items() if entry.special}
    return RawVocabulary(
        rules,
        ids,
        frozenset(special | _named_special(tokenizer, rules, ids)),
        frozenset(token for token, entry in added.items() if entry.content not in models_own),
        slow=False,
    )


def _read_slow(tokenizer: Any) -> RawVocabulary:
    ids: dict[str, int] = tokenizer.get_vocab()
    rules = read_slow_rules(tokenizer, ids)
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    special = {token for token, entry in added.items() if entry.special} | slow_specials(tokenizer, ids)
    return RawVocabulary(
        rules, ids, frozenset(special | _named_special(tokenizer, rules, ids)), frozenset(added), slow=True
    )


def _named_special(tokenizer: Any, rules: SurfaceRules, ids: Mapping[str, int]) -> set[int]:
    """Ids of the tokens that the tokenizer's attributes name as special, and of the unknown token."""
    named = {str(surface) for surface in getattr(tokenizer, "all_special_tokens", None) or ()}
    if rules.unk_token:
        named.add(rules.unk_token)
    return {ids[surface] for surface in named if surface in ids}

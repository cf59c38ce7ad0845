"""Canonical vocabularies: for each token id the bytes it stands for, whatever alphabet the tokenizer writes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mapping_cache.vocabularies.raw_vocabulary import RawVocabulary, read_raw_vocabulary
from mapping_cache.vocabularies.slow_tokenizers import check_round_trip
from mapping_cache.vocabularies.special_roles import find_roles
from mapping_cache.vocabularies.surfaces import BYTE_TOKEN, byte_alphabet, surface_bytes, utf8


@dataclass(frozen=True, slots=True)
class CanonicalVocabulary:
    """A tokenizer's vocabulary as bytes.

    `tokens[i]`: the bytes of id `i`; `None` for special tokens and for ids that the tokenizer lacks.
    `surfaces[i]`: the token as the tokenizer writes it, special tokens included; `None` for ids that it lacks.
    `specials`: the surface of each special id.
    `roles`: the ids of each role: "bos", "eos" (every end-of-turn token), "pad" and "unk".
    `main`: the one id to use for a role, where there is one.
    `byte_tokens`: the ids of byte-fallback tokens such as `<0x41>`.
    `dummy_prefix`: where decoding drops one leading space: "none", "first" (start of the text) or "always" (start of
    every stretch of text between special tokens).
    `fingerprint`: a hex digest of all of the above.
    """

    tokens: tuple[bytes | None, ...]
    surfaces: tuple[str | None, ...]
    specials: Mapping[int, str]
    roles: Mapping[str, frozenset[int]]
    main: Mapping[str, int]
    byte_tokens: frozenset[int]
    dummy_prefix: str
    fingerprint: str

    def __len__(self) -> int:
        return len(self.tokens)

    def same_tokens(self, other: CanonicalVocabulary) -> bool:
        """Whether every id stands for the same token in both vocabularies; padding at the end is ignored."""
        shared = min(len(self), len(other))
        return (
            self.tokens[:shared] == other.tokens[:shared]
            and self.surfaces[:shared] == other.surfaces[:shared]
            and self.specials == other.specials
            and self.byte_tokens == other.byte_tokens
            and not any(self.surfaces[shared:])
            and not any(other.surfaces[shared:])
        )


def canonical_vocabulary(tokenizer: Any, size: int | None = None) -> CanonicalVocabulary:
    """The canonical vocabulary of a Hugging Face tokenizer, fast or slow, or of a bare `tokenizers.Tokenizer`.

    `size` is the width of the model's logits; the default is the tokenizer's own size. Ids that the tokenizer lacks
    are padding. Ids from `size` on are left out, since the model cannot produce them.
    Raises `UnsupportedTokenizerError`, which names the part that is not understood.
    """
    raw = read_raw_vocabulary(tokenizer)
    width = max([*raw.ids.values(), -1]) + 1 if size is None else size
    surfaces: list[str | None] = [None] * width
    for surface, token in raw.ids.items():
        if token < width:
            surfaces[token] = surface
    specials = {token: surfaces[token] or "" for token in sorted(raw.special) if token < width}
    tokens, byte_tokens = _tokens_as_bytes(surfaces, raw, specials)
    if raw.slow:
        check_round_trip(tokenizer, tokens)
    roles, main = find_roles(tokenizer, specials, raw.rules.unk_token)
    dummy_prefix = raw.rules.dummy_prefix
    return CanonicalVocabulary(
        tokens=tuple(tokens),
        surfaces=tuple(surfaces),
        specials=specials,
        roles=roles,
        main=main,
        byte_tokens=frozenset(byte_tokens),
        dummy_prefix=dummy_prefix,
        fingerprint=_fingerprint(tokens, surfaces, specials, roles, main, byte_tokens, dummy_prefix),
    )


def _tokens_as_bytes(
    surfaces: list[str | None], raw: RawVocabulary, specials: Mapping[int, str]
) -> tuple[list[bytes | None], set[int]]:
    """The bytes of every id, and the ids of byte-fallback tokens."""
    alphabet = byte_alphabet()
    tokens: list[bytes | None] = []
    byte_tokens: set[int] = set()
    for token, surface in enumerate(surfaces):
        if surface is None or token in specials:
            tokens.append(None)
        elif token in raw.verbatim:
            tokens.append(utf8(surface))
        elif raw.rules.byte_fallback and (match := BYTE_TOKEN.match(surface)):
            byte_tokens.add(token)
            tokens.append(bytes([int(match[1], 16)]))
        else:
            tokens.append(surface_bytes(surface, raw.rules, alphabet))
    return tokens, byte_tokens


def _fingerprint(
    tokens: list[bytes | None],
    surfaces: list[str | None],
    specials: Mapping[int, str],
    roles: Mapping[str, frozenset[int]],
    main: Mapping[str, int],
    byte_tokens: set[int],
    dummy_prefix: str,
) -> str:
    digest = hashlib.sha256()
    for token in tokens:
        digest.update(b"-" if token is None else b"%d:%s" % (len(token), token))
    digest.update(repr(surfaces).encode("utf-8", "surrogatepass"))
    described = [sorted(specials.items()), sorted((role, sorted(ids)) for role, ids in roles.items())]
    digest.update(repr((described, sorted(main.items()), sorted(byte_tokens), dummy_prefix)).encode())
    return digest.hexdigest()

"""A vocabulary as the bytes its tokens stand for, whatever alphabet the tokenizer writes them in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mapping_cache.errors import UnsupportedTokenizerError
from mapping_cache.inventory import Inventory, read_inventory
from mapping_cache.parts import BYTE_TOKEN, METASPACE, Spelling, TokenizerParts, byte_alphabet
from mapping_cache.roles import find_roles
from mapping_cache.slow import check_spelling


@dataclass(frozen=True, slots=True)
class CanonicalVocabulary:
    """What every id of a tokenizer stands for.

    `tokens[i]` is the bytes of id `i`, `None` for special tokens and for ids that the tokenizer lacks.
    `surfaces[i]` is the token as the tokenizer writes it, special tokens included, `None` where it has none.
    `specials` maps special ids to their surfaces; `roles` has the keys "bos", "eos" (every end-of-turn id),
    "pad" and "unk"; `main` has the one id to use for a role where there is one.
    `byte_tokens` are the ids of byte-fallback tokens such as `<0x41>`.
    `dummy_prefix` says where decoding drops one leading space: "none", "first" (start of the text) or
    "always" (start of every stretch of text between special tokens).
    `fingerprint` is a hex digest of everything above.
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
        """Whether every id stands for the same thing in both, padding at the end aside."""
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

    `size` is the width of the model's logits: ids that the tokenizer lacks are padding, and ids beyond it are
    left out since the model cannot produce them. Default: the tokenizer's own size.
    Raises `UnsupportedTokenizerError` naming the part that is not understood.
    """
    inventory = read_inventory(tokenizer)
    width = max([*inventory.ids.values(), -1]) + 1 if size is None else size
    surfaces: list[str | None] = [None] * width
    for surface, token in inventory.ids.items():
        if token < width:
            surfaces[token] = surface
    specials = {token: surfaces[token] or "" for token in sorted(inventory.special) if token < width}
    tokens, byte_tokens = _spell_all(surfaces, inventory, specials)
    if inventory.slow:
        check_spelling(tokenizer, tokens)
    roles, main = find_roles(tokenizer, specials, inventory.parts.unk_token)
    dummy_prefix = inventory.parts.dummy_prefix
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


def _spell_all(
    surfaces: list[str | None], inventory: Inventory, specials: Mapping[int, str]
) -> tuple[list[bytes | None], set[int]]:
    alphabet = byte_alphabet()
    parts = inventory.parts
    tokens: list[bytes | None] = []
    byte_tokens: set[int] = set()
    for token, surface in enumerate(surfaces):
        if surface is None or token in specials:
            tokens.append(None)
        elif token in inventory.verbatim:
            # The tokenizer finds added tokens in the text as they are, before its own alphabet applies.
            tokens.append(_utf8(surface))
        elif parts.byte_fallback and (match := BYTE_TOKEN.match(surface)):
            byte_tokens.add(token)
            tokens.append(bytes([int(match[1], 16)]))
        else:
            tokens.append(_spell(surface, parts, alphabet))
    return tokens, byte_tokens


def _spell(surface: str, parts: TokenizerParts, alphabet: Mapping[str, int]) -> bytes:
    if parts.end_of_word and surface.endswith(parts.end_of_word):
        return _spell_letters(surface.removesuffix(parts.end_of_word), parts, alphabet) + b" "
    if parts.continuing_suffix:
        if surface.endswith(parts.continuing_suffix):
            return _spell_letters(surface.removesuffix(parts.continuing_suffix), parts, alphabet)
        return _spell_letters(surface, parts, alphabet) + b" "
    return _spell_letters(surface, parts, alphabet)


def _spell_letters(surface: str, parts: TokenizerParts, alphabet: Mapping[str, int]) -> bytes:
    """A surface whose mark of a word's end, if any, is taken off."""
    if parts.spelling is Spelling.BYTE_LEVEL:
        try:
            return bytes([alphabet[character] for character in surface])
        except KeyError:
            return _utf8(surface)  # the decoder gives such a token as it stands
    if parts.spelling is Spelling.RAW_BYTES:
        try:
            return surface.encode("latin-1")
        except UnicodeEncodeError:
            raise UnsupportedTokenizerError("model", f"{surface!r} is none of 256 bytes") from None
    if parts.spelling is Spelling.METASPACE:
        return _utf8(surface.replace(METASPACE, " "))
    prefix = parts.continuing_prefix
    if prefix and surface.startswith(prefix):
        return _utf8(surface.removeprefix(prefix))
    return _utf8(f" {surface}" if parts.spelling is Spelling.WORD else surface)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


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
    for spelled in tokens:
        digest.update(b"-" if spelled is None else b"%d:%s" % (len(spelled), spelled))
    digest.update(repr(surfaces).encode("utf-8", "surrogatepass"))
    described = [sorted(specials.items()), sorted((role, sorted(ids)) for role, ids in roles.items())]
    digest.update(repr((described, sorted(main.items()), sorted(byte_tokens), dummy_prefix)).encode())
    return digest.hexdigest()

"""Fixtures: vocabularies made by hand, and published tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mapping_cache import CanonicalVocabulary

REAL_TOKENIZERS = Path(__file__).resolve().parents[2].parent / "shared" / "tokenizers"

MakeVocabulary = Callable[..., CanonicalVocabulary]


@pytest.fixture(scope="session")
def make_vocabulary() -> MakeVocabulary:
    """`make(tokens, specials={}, roles={}, byte_tokens=())` makes a vocabulary; a token is bytes, a surface or None."""

    def make(
        tokens: Sequence[bytes | str | None],
        specials: Mapping[int, str] | None = None,
        roles: Mapping[str, Sequence[int]] | None = None,
        byte_tokens: Sequence[int] = (),
    ) -> CanonicalVocabulary:
        specials, roles = specials or {}, roles or {}
        data = [token.encode() if isinstance(token, str) else token for token in tokens]
        surfaces = [token.decode("latin-1") if isinstance(token, bytes) else token for token in tokens]
        return CanonicalVocabulary(
            tokens=tuple(None if i in specials else token for i, token in enumerate(data)),
            surfaces=tuple(specials.get(i, surface) for i, surface in enumerate(surfaces)),
            specials=dict(specials),
            roles={role: frozenset(roles.get(role, ())) for role in ("bos", "eos", "pad", "unk")},
            main={role: ids[0] for role, ids in roles.items() if ids},
            byte_tokens=frozenset(byte_tokens),
            dummy_prefix="none",
            fingerprint=repr((tokens, specials, roles, byte_tokens)),
        )

    return make


@pytest.fixture(scope="session")
def real_tokenizer() -> Callable[[str], Any]:
    """Loads one of the four published tokenizers by name, once; skips the test if its folder is missing."""
    loaded: dict[str, Any] = {}

    def load(name: str) -> Any:
        folder = REAL_TOKENIZERS / name
        if not folder.is_dir():
            pytest.skip(f"no real tokenizer at {folder}")
        if name not in loaded:
            from transformers import AutoTokenizer

            loaded[name] = AutoTokenizer.from_pretrained(folder)
        return loaded[name]

    return load

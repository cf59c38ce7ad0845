"""Encodes text for a steering model, in pieces that later text cannot change."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

from mapping_cache import CanonicalVocabulary

# Every tokenizer family splits between two ASCII words, before the space, whatever stands further away.
_BOUNDARY = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_CROSSES_BOUNDARY = re.compile(rb"[A-Za-z] ")
# Texts to encode another text behind. Nearly every text keeps its own tokens behind one of them.
_BEFORE = ("x\n", "x:", "x")
_SAMPLE = (
    "The quick brown fox, it's said, jumped over 13 lazy dogs. He told nobody WHY he did so\n\nand left early"
)


class SteeringEncoder:
    """Encodes plain text only: a `<s>` that somebody typed stays text.

    `prefix` holds the tokens that the tokenizer puts before every text, such as `<s>`.
    """

    def __init__(self, tokenizer: Any, vocabulary: CanonicalVocabulary) -> None:
        self._plain_ids = _plain_encoder(tokenizer)
        self._drops_space = vocabulary.dummy_prefix != "none"
        self.prefix = self._automatic_prefix(tokenizer)
        self._has_boundaries = self._check_boundaries(vocabulary)

    def encode(self, text: str, *, within: bool = False) -> list[int]:
        """The tokens of a text segment. `within`: it starts at a boundary inside the segment, with that space."""
        if within and self._drops_space:
            text = text[1:]  # the tokenizer's own dummy prefix takes the place of the space
        return self._plain_ids(text) if text else []

    def following(self, texts: Sequence[str]) -> list[list[int] | None]:
        """The tokens of each text where it follows another text; None where every text tried merges with it."""
        found: list[list[int] | None] = [None] * len(texts)
        for before in _BEFORE:
            left = [number for number, ids in enumerate(found) if ids is None]
            start = self.encode(before)
            for number in left:
                ids = self.encode(before + texts[number])
                if ids[: len(start)] == start:
                    found[number] = ids[len(start) :]
        return found

    def last_boundary(self, text: str) -> int:
        """The last place where the text can be cut for good, or 0. The tokens before it never change again."""
        if not self._has_boundaries:
            return 0
        # The last boundary is near the end, so search backwards word by word.
        end = len(text)
        while (space := text.rfind(" ", 1, end)) > 0:
            if _BOUNDARY.match(text, space):
                return space
            end = space
        return 0

    def _automatic_prefix(self, tokenizer: Any) -> tuple[int, ...]:
        plain = tokenizer.encode("a", add_special_tokens=False)
        full = tokenizer.encode("a", add_special_tokens=True)
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return tuple(full[:start])
        return ()

    def _check_boundaries(self, vocabulary: CanonicalVocabulary) -> bool:
        if any(piece is not None and _CROSSES_BOUNDARY.search(piece) for piece in vocabulary.tokens):
            return False
        whole = self.encode(_SAMPLE)
        return all(
            self.encode(_SAMPLE[: m.start()]) + self.encode(_SAMPLE[m.start() :], within=True) == whole
            for m in _BOUNDARY.finditer(_SAMPLE)
        )


def _plain_encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    """Text to ids. No text becomes a special token."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a slow tokenizer
        return lambda text: list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
    own = Tokenizer.from_str(backend.to_str())
    own.encode_special_tokens = True
    own.no_truncation()
    own.no_padding()
    return lambda text: list(own.encode(text, add_special_tokens=False).ids)

"""The steering model's own tokens for the text so far, kept in step with the base's tokens.

The published loop (Wu et al. 2024, section 4) re-encodes the whole text and drops the steering model's keys and values
whenever a token has no exact counterpart. A history here always equals `encode(text so far)`, is re-encoded from a
boundary that later text cannot move, and lets unchanged tokens keep their keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Protocol

from mapping_cache import CanonicalVocabulary
from steering.crossing.encoder import Start, SteeringEncoder
from steering.crossing.text import TextStream

# A text that grows to so many characters without a word boundary is settled at another place.
_SETTLE_FROM = 96


@dataclass(frozen=True, slots=True)
class Continuation:
    """A history with one more base token: its first `common` tokens, then `suffix`."""

    common: int
    suffix: list[int]


class History(Protocol):
    """Steering tokens that follow the base's tokens. `reencoded` counts tokens that a later encoding replaced."""

    tokens: list[int]
    reencoded: int

    @property
    def settled(self) -> int:
        """The number of tokens from the start that later text cannot change."""

    def copy(self) -> History:
        """An independent copy."""

    def push(self, base_token: int) -> int:
        """Append one base token. Returns the index of the first steering token that is new or changed."""

    def continuation(self, base_token: int) -> Continuation | None:
        """The history after one more base token; None where that token completes no text."""


class SharedHistory:
    """The history over a shared vocabulary: the base's own tokens."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.reencoded = 0

    @property
    def settled(self) -> int:
        """All tokens."""
        return len(self.tokens)

    def copy(self) -> SharedHistory:
        """An independent copy."""
        other = copy(self)
        other.tokens = list(self.tokens)
        return other

    def push(self, base_token: int) -> int:
        """Append the token as it is."""
        self.tokens.append(base_token)
        return len(self.tokens) - 1

    def continuation(self, base_token: int) -> Continuation | None:
        """All tokens, then this one."""
        return Continuation(len(self.tokens), [base_token])


class TextHistory:
    """The history across two vocabularies, which meet in the text.

    `specials` maps base special tokens to steering special tokens. Base special tokens without a counterpart are
    skipped.
    """

    def __init__(
        self, base: CanonicalVocabulary, encoder: SteeringEncoder, specials: Mapping[int, int]
    ) -> None:
        self._base = base
        self._encoder = encoder
        self._specials = specials
        self._stream = TextStream(base)
        self._text = ""  # of the current segment, from the last place on where it was cut
        self._start: Start = "segment"
        self._next_try = _SETTLE_FROM
        self._started = False
        self.tokens: list[int] = list(encoder.prefix)
        self._frozen = len(self.tokens)
        self.reencoded = 0

    @property
    def settled(self) -> int:
        """The tokens before the last boundary."""
        return self._frozen

    def copy(self) -> TextHistory:
        """An independent copy."""
        other = copy(self)
        other.tokens = list(self.tokens)
        other._stream = self._stream.copy()
        return other

    def push(self, base_token: int) -> int:
        """Encode the text that the token completes, from the last boundary on."""
        changed = len(self.tokens)
        text = self._stream.push_one(base_token)
        if text:
            changed = self._extend(text)
        if self._base.tokens[base_token] is None:
            changed = min(changed, self._push_special(base_token))
        self._started = True
        return changed

    def continuation(self, base_token: int) -> Continuation | None:
        """The encoding of the text with this token's text appended."""
        text = self._stream.peek(base_token)
        if not text:
            return None
        tail = self._encoder.encode(self._text + text, self._start)
        common = self._common(tail)
        return Continuation(common, tail[common - self._frozen :])

    def _extend(self, text: str) -> int:
        self._text += text
        tail = self._encoder.encode(self._text, self._start)
        common = self._common(tail)
        self.reencoded += len(self.tokens) - common
        self.tokens[common:] = tail[common - self._frozen :]
        self._cut()
        return common

    def _cut(self) -> None:
        """Freeze the tokens that later text cannot change."""
        boundary = self._encoder.last_boundary(self._text)
        if boundary:
            rest = len(self._encoder.encode(self._text[boundary:], "space"))
            self._go_on(boundary, "space", len(self.tokens) - rest)
        elif len(self._text) >= self._next_try:
            settled = self._encoder.settle(self._text, self._start)
            if settled is None:
                # Trying at every token would cost more than it saves.
                self._next_try = 2 * len(self._text)
            else:
                self._go_on(settled.place, "cut", self._frozen + settled.tokens)

    def _go_on(self, place: int, start: Start, frozen: int) -> None:
        self._text, self._start, self._frozen = self._text[place:], start, frozen
        self._next_try = _SETTLE_FROM

    def _push_special(self, base_token: int) -> int:
        end = len(self.tokens)
        special = self._specials.get(base_token)
        merged = not self._started and special is not None and special in self._encoder.prefix[:1]
        if special is not None and not merged:
            self.tokens.append(special)
        self._go_on(len(self._text), "segment", len(self.tokens))
        return end

    def _common(self, tail: list[int]) -> int:
        """How many tokens stay when everything after the boundary becomes `tail`."""
        common = self._frozen
        for old, new in zip(self.tokens[self._frozen :], tail, strict=False):
            if old != new:
                break
            common += 1
        return common

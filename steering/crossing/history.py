"""What a steering model has read: its own tokens, kept in step with the base's.

The published loop (Wu et al. 2024, section 4) re-encodes the whole text and drops the steering model's keys and
values whenever a token has no exact counterpart. Here the history is always `encode(text so far)`, re-encoded from a
boundary that later text cannot move, and what did not change keeps its keys and values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

from tokenizers import Tokenizer

from mapping_cache import CanonicalVocabulary
from steering.crossing.text import TextStream

# Between two ASCII words every tokenizer family splits before the space, whatever stands further away.
_BOUNDARY = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_CROSSES_BOUNDARY = re.compile(rb"[A-Za-z] ")
# What a text can stand behind without becoming one token with it; one of them does for nearly every text.
_BEFORE = ("x\n", "x:", "x")
_SAMPLE = (
    "The quick brown fox, it's said, jumped over 13 lazy dogs. He told nobody WHY he did so\n\nand left early"
)


@dataclass(frozen=True, slots=True)
class Continuation:
    """A history with one more base token: it keeps the first `common` tokens, then `suffix` follows."""

    common: int
    suffix: list[int]


class History(Protocol):
    """Steering tokens that follow the base's. `reencoded` counts tokens that came out different when encoded again."""

    tokens: list[int]
    reencoded: int

    @property
    def settled(self) -> int:
        """How many tokens from the start nothing that comes later can change."""

    def copy(self) -> History:
        """Another history that stands where this one does."""

    def push(self, base_token: int) -> int:
        """Take the base's next token; returns the index of the first steering token that is new or changed."""

    def continuation(self, base_token: int) -> Continuation | None:
        """The history that one more base token would give; None where that token alone adds no complete text."""


class SharedHistory:
    """The history where base and steering model have one vocabulary: the base's own tokens."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.reencoded = 0

    @property
    def settled(self) -> int:
        """See `History.settled`."""
        return len(self.tokens)

    def copy(self) -> SharedHistory:
        """See `History.copy`."""
        other = copy(self)
        other.tokens = list(self.tokens)
        return other

    def push(self, base_token: int) -> int:
        """See `History.push`."""
        self.tokens.append(base_token)
        return len(self.tokens) - 1

    def continuation(self, base_token: int) -> Continuation | None:
        """See `History.continuation`."""
        return Continuation(len(self.tokens), [base_token])


class SteeringEncoder:
    """Encodes text for a steering model: plain text only, so that a `<s>` that somebody typed stays text."""

    def __init__(self, tokenizer: Any, vocabulary: CanonicalVocabulary) -> None:
        self._plain_ids = _plain_encoder(tokenizer)
        self._drops_space = vocabulary.dummy_prefix != "none"
        self.prefix = self._automatic_prefix(tokenizer)
        self._has_boundaries = self._check_boundaries(vocabulary)

    def encode(self, text: str, *, within: bool = False) -> list[int]:
        """Tokens of a text segment. `within`: it starts at a boundary inside the segment, with that space."""
        if within and self._drops_space:
            text = text[1:]  # the tokenizer's own dummy prefix takes the space's place
        return self._plain_ids(text) if text else []

    def following(self, texts: Sequence[str]) -> list[list[int] | None]:
        """The tokens of each text where it follows another; None where no text was found that it leaves as it is."""
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
        """Where the text can be cut for good, or 0: what stands before encodes alike whatever follows."""
        if not self._has_boundaries:
            return 0
        # Only the last one is wanted, and it is near the end: search backwards word by word.
        end = len(text)
        while (space := text.rfind(" ", 1, end)) > 0:
            if _BOUNDARY.match(text, space):
                return space
            end = space
        return 0

    def _automatic_prefix(self, tokenizer: Any) -> tuple[int, ...]:
        """What the tokenizer puts before every text, such as `<s>`."""
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
    """Text to ids, with no special token whatever the text spells."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a slow tokenizer
        return lambda text: list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
    own = Tokenizer.from_str(backend.to_str())
    own.encode_special_tokens = True
    own.no_truncation()
    own.no_padding()
    return lambda text: list(own.encode(text, add_special_tokens=False).ids)


class TextHistory:
    """The history across two vocabularies, by way of the text.

    `specials`: base special token -> steering special token; base specials without a counterpart leave no trace.
    """

    def __init__(
        self, base: CanonicalVocabulary, encoder: SteeringEncoder, specials: Mapping[int, int]
    ) -> None:
        self._base = base
        self._encoder = encoder
        self._specials = specials
        self._stream = TextStream(base)
        self._text = ""  # of the current segment, from the last boundary on
        self._within = False
        self._started = False
        self.tokens: list[int] = list(encoder.prefix)
        self._frozen = len(self.tokens)
        self.reencoded = 0

    @property
    def settled(self) -> int:
        """See `History.settled`."""
        return self._frozen

    def copy(self) -> TextHistory:
        """See `History.copy`."""
        other = copy(self)
        other.tokens = list(self.tokens)
        other._stream = self._stream.copy()
        return other

    def push(self, base_token: int) -> int:
        """See `History.push`."""
        changed = len(self.tokens)
        text = self._stream.push_one(base_token)
        if text:
            changed = self._extend(text)
        if self._base.tokens[base_token] is None:
            changed = min(changed, self._push_special(base_token))
        self._started = True
        return changed

    def continuation(self, base_token: int) -> Continuation | None:
        """See `History.continuation`."""
        text = self._stream.peek(base_token)
        if not text:
            return None
        tail = self._encoder.encode(self._text + text, within=self._within)
        common = self._common(tail)
        return Continuation(common, tail[common - self._frozen :])

    def _extend(self, text: str) -> int:
        self._text += text
        tail = self._encoder.encode(self._text, within=self._within)
        common = self._common(tail)
        self.reencoded += len(self.tokens) - common
        self.tokens[common:] = tail[common - self._frozen :]
        boundary = self._encoder.last_boundary(self._text)
        if boundary:
            self._text = self._text[boundary:]
            rest = len(self._encoder.encode(self._text, within=True))
            self._within = True
            self._frozen = len(self.tokens) - rest
        return common

    def _push_special(self, base_token: int) -> int:
        end = len(self.tokens)
        special = self._specials.get(base_token)
        merged = not self._started and special is not None and special in self._encoder.prefix[:1]
        if special is not None and not merged:
            self.tokens.append(special)
        self._frozen = len(self.tokens)
        self._text, self._within = "", False
        return end

    def _common(self, tail: list[int]) -> int:
        """Length of the longest prefix that the tokens share with `frozen tokens + tail`."""
        common = self._frozen
        for old, new in zip(self.tokens[self._frozen :], tail, strict=False):
            if old != new:
                break
            common += 1
        return common

"""Finds the tokens at the start of a text that no later text can change, where the text has no word boundary.

A later token can reach back into the text only where the text ends in the beginning of that token. So the encoding of
any longer text has a token boundary at one of a few places near the end, the *cut places*, and before that boundary it
equals the encoding of the text up to there. Tokens that the encodings up to every cut place have in common are settled.
This holds for BPE and Unigram alike: a token boundary cuts the encoding of a text into those of its parts.

A pre-tokenizer may split a text in another way once more text follows: in the published patterns a line break joins all
whitespace before it. So a few continuations, the *probes*, must keep the settled tokens too. A pre-tokenizer may also
split the rest of a text in another way than the whole. So a place to start again is accepted only if encoding from
there gives the same tokens, up to every cut place and with every probe, with a margin of text behind it.
"""

from __future__ import annotations

import codecs
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mapping_cache import CanonicalVocabulary
from steering.crossing.text import common_prefix

# Text that must follow a place to start again: longer than any pattern of a pre-tokenizer, such as three digits.
_MARGIN = 24
# Places that are tried, from the last one back.
_TRIES = 4
# One for each kind of character that the patterns of pre-tokenizers tell apart. Two digits, because patterns may count
# digits in threes from the end.
_PROBES = ("a", "1", "11", "\n", "'s", "!")
# So many numbers of the vocabulary, three times each, are one more probe. Where a pattern counts digits in threes,
# groups that start at the wrong digit show only in tokens of several digits.
_NUMBERS = 4

Encode = Callable[[str], list[int]]
Boundaries = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Settled:
    """The first `tokens` tokens are settled. Encoding starts again at character `place`."""

    place: int
    tokens: int


class Settler:
    """Settles texts of one tokenizer."""

    def __init__(
        self, vocabulary: CanonicalVocabulary, restart: Encode, normalise: Callable[[str], str]
    ) -> None:
        self._tokens = sorted({token for token in vocabulary.tokens if token})
        self._longest = max((len(token) for token in self._tokens), default=1)
        self._longest_open = max((len(token) for token in self._tokens if _is_open(token)), default=0)
        numbers = [token.decode() for token in self._tokens if len(token) > 1 and token.isdigit()]
        self._probes = (*_PROBES, "".join(3 * number for number in numbers[:: len(numbers) // _NUMBERS + 1]))
        self._restart = restart
        self._normalise = normalise
        self._composes = normalise("e\u0301") != "e\u0301"

    def settle(self, text: str, encode: Encode, boundaries: Boundaries) -> Settled | None:
        """The largest settled part of a text that leaves the margin; None where none is found.

        encode: gives the tokens of a text that starts where this one does. boundaries: gives, for each token of such a
        text, the character that it starts at, -1 where it starts inside a character.
        """
        whole = encode(text)
        others = [text[:cut] for cut in self._cut_places(text)] + [text + probe for probe in self._probes]
        encodings = {text: whole} | {other: encode(other) for other in others}
        common = min(common_prefix(whole, encoding) for encoding in encodings.values())
        tries = 0
        starts = boundaries(text)
        for count in range(min(common, len(starts) - 1), 0, -1):
            place = starts[count]
            if not 0 < place <= len(text) - _MARGIN or (self._composes and _joins(text[place])):
                continue
            if all(self._restart(end[place:]) == encoding[count:] for end, encoding in encodings.items()):
                return Settled(place, count)
            tries += 1
            if tries == _TRIES:
                break
        return None

    def _cut_places(self, text: str) -> list[int]:
        """The places from which on the text is the beginning of a longer token."""
        tail = text[-self._longest :]
        if self._normalise(tail) != tail:
            # The tokens stand for other bytes than the text has, so any place may be one.
            return list(range(len(text) - 1, max(len(text) - len(tail), 0), -1))
        encoded = tail.encode()
        found: list[int] = []
        place, reach = len(text), 0
        for start in range(len(encoded) - 1, 0, -1):
            is_character = encoded[start] & 0xC0 != 0x80
            place -= is_character
            if self._begins_token(encoded[start:]):
                # Before a token that starts inside a character comes one that ends there, and starts further back.
                reach = max(reach, 1 if is_character else self._longest_open + 1)
            if is_character and reach:
                found.append(place)
            reach -= reach > 0
        return found

    def _begins_token(self, content: bytes) -> bool:
        place = bisect_left(self._tokens, content)
        if place < len(self._tokens) and self._tokens[place] == content:
            place += 1
        return place < len(self._tokens) and self._tokens[place].startswith(content)


def _is_open(token: bytes) -> bool:
    """True for a token that ends inside a character."""
    if token.isascii():
        return False
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(token)
    return bool(decoder.getstate()[0])


def _joins(character: str) -> bool:
    """True for a character that a normaliser may join with the one before it."""
    return unicodedata.category(character)[0] == "M" or "\u1100" <= character <= "\u11ff"

"""Encodes text for a steering model, in pieces that later text cannot change."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import Unigram, WordPiece

from mapping_cache import CanonicalVocabulary
from steering.crossing.settling import Settled, Settler

Start = Literal["segment", "space", "cut"]
"""Where a piece of text starts: with its segment, at a word boundary with that space, or anywhere inside a segment."""

# Every tokenizer family splits between two ASCII words, before the space, whatever stands further away.
_BOUNDARY = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_CROSSES_BOUNDARY = re.compile(rb"[A-Za-z] ")
# Texts to encode another text behind. Nearly every text keeps its own tokens behind one of them.
_BEFORE = ("x\n", "x:", "x")
# The most tokens of one character that an encoding may have.
_MAX_TOKENS = 16
_BACKENDS: WeakKeyDictionary[Any, Tokenizer] = WeakKeyDictionary()
_LOCK = threading.Lock()
_SAMPLE = (
    "The quick brown fox, it's said, jumped over 13 lazy dogs. He told nobody WHY he did so\n\nand left early"
)


class SteeringEncoder:
    """Encodes plain text only: a `<s>` that somebody typed stays text.

    `prefix` holds the tokens that the tokenizer puts before every text, such as `<s>`. `encoded_characters` counts the
    text encoded so far.
    """

    def __init__(self, tokenizer: Any, vocabulary: CanonicalVocabulary) -> None:
        self._tokenizer = tokenizer
        self._backend = _plain_backend(tokenizer)
        self._vocabulary = vocabulary
        self._drops_space = vocabulary.dummy_prefix != "none"
        self.encoded_characters = 0
        self.prefix = self._automatic_prefix(tokenizer)
        self._before = self._plain_ids(_BEFORE[0])
        # WordPiece writes a whole word as unknown where a later part of it is, or where it grows long.
        is_local = self._backend is None or not isinstance(self._backend.model, WordPiece)
        self._has_boundaries = is_local and self._check_boundaries(vocabulary)
        self._settler = None
        if is_local and _restarts_exactly(tokenizer, self._backend):
            self._settler = Settler(vocabulary, partial(self.encode, start="cut"), self._normalise)

    def encode(self, text: str, start: Start = "segment") -> list[int]:
        """The tokens of a piece of text. A piece that starts at a cut must keep its own tokens there (`settle`)."""
        if not text:
            return []
        if start == "segment" or not self._drops_space:
            return self._plain_ids(text)
        if start == "space":
            return self._plain_ids(text[1:])  # the tokenizer's own dummy prefix takes the place of the space
        # Anywhere else the dummy prefix would be one token too many, so the piece is encoded behind another text.
        return self._plain_ids(_BEFORE[0] + text)[len(self._before) :]

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
        """The last word boundary where the text can be cut for good, or 0. The tokens before it never change again."""
        if not self._has_boundaries:
            return 0
        # The last boundary is near the end, so search backwards word by word.
        end = len(text)
        while (space := text.rfind(" ", 1, end)) > 0:
            if _BOUNDARY.match(text, space):
                return space
            end = space
        return 0

    def settle(self, text: str, start: Start) -> Settled | None:
        """The part of a text without word boundaries that later text cannot change; None where there is none."""
        if self._settler is None:
            return None
        return self._settler.settle(
            text, partial(self.encode, start=start), partial(self._token_starts, start=start)
        )

    def _plain_ids(self, text: str) -> list[int]:
        self.encoded_characters += len(text)
        if self._backend is None:
            ids = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        else:
            ids = self._backend.encode(text, add_special_tokens=False).ids
        if len(ids) > _MAX_TOKENS * (len(text) + 1):
            raise ValueError(f"the steering tokenizer makes {len(ids)} tokens of {len(text)} characters")
        return list(ids)

    def _token_starts(self, text: str, start: Start) -> list[int]:
        """The character that each token starts at, -1 inside a character; [] where this is not known."""
        if self._backend is None:
            return self._starts_by_bytes(text, start)
        skipped, offset, whole = 0, 0, text
        if self._drops_space and start == "space":
            whole, offset = text[1:], -1
        elif self._drops_space and start == "cut":
            whole, offset, skipped = _BEFORE[0] + text, len(_BEFORE[0]), len(self._before)
        spans = self._backend.encode(whole, add_special_tokens=False).offsets
        ends = accumulate((end for _, end in spans), max, initial=0)
        starts = [first if first >= end else -1 for (first, _), end in zip(spans, ends, strict=False)]
        return [first if first < 0 else first - offset for first in starts[skipped:]]

    def _starts_by_bytes(self, text: str, start: Start) -> list[int]:
        pieces = [self._vocabulary.tokens[token] or b"" for token in self.encode(text, start)]
        content, encoded = b"".join(pieces), text.encode()
        surplus = len(content) - len(encoded)
        if surplus not in (0, 1) or content[surplus:] != encoded:
            return []
        characters = {place: number for number, place in enumerate(accumulate(map(_width, text), initial=0))}
        places = accumulate((len(piece) for piece in pieces), initial=0)
        return [characters.get(place - surplus, -1) for place, _ in zip(places, pieces, strict=False)]

    def _normalise(self, text: str) -> str:
        normalizer = None if self._backend is None else self._backend.normalizer
        if normalizer is None:
            return text
        found: str = normalizer.normalize_str(text).replace("\u2581", " ")
        return found[1:] if self._drops_space and len(found) == len(text) + 1 else found

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
            self.encode(_SAMPLE[: m.start()]) + self.encode(_SAMPLE[m.start() :], "space") == whole
            for m in _BOUNDARY.finditer(_SAMPLE)
        )


def _plain_backend(tokenizer: Any) -> Tokenizer | None:
    """The tokenizer's own encoder, with which no text becomes a special token; None for a slow tokenizer.

    One copy serves every encoder of a tokenizer, in any thread: encoding changes nothing in it. A copy for each would
    leak, since tokenizers 0.23 does not free what it has cached of encoded words (200 bytes a word).
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    with _LOCK:
        own = _BACKENDS.get(tokenizer)
        if own is None:
            own = Tokenizer.from_str(backend.to_str())
            own.encode_special_tokens = True
            own.no_truncation()
            own.no_padding()
            _BACKENDS[tokenizer] = own
        return own


def _restarts_exactly(tokenizer: Any, backend: Tokenizer | None) -> bool:
    """False where encoding the rest of a text may differ from the rest of its encoding.

    With `</w>` and the like, the last token of a text differs from the same token further on. A Unigram model adds up
    weights, and chooses between equal sums by their rounding, which depends on the start. Sums of weights from a
    SentencePiece file are exact: float32 numbers in float64.
    """
    if backend is None:
        pieces = getattr(tokenizer, "sp_model", None)
        # The weights of a SentencePiece BPE model are ranks. A Unigram model adds up its weights in float32 here.
        return pieces is None or all(pieces.get_score(i).is_integer() for i in range(pieces.get_piece_size()))
    if isinstance(backend.model, Unigram):
        weights = np.array([weight for _, weight in json.loads(backend.to_str())["model"]["vocab"]])
        return bool((weights == weights.astype(np.float32)).all())
    return not getattr(backend.model, "end_of_word_suffix", None)


def _width(character: str) -> int:
    return len(character.encode("utf-8", "surrogatepass"))

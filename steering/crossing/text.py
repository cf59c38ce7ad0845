"""Token ids to text, one token at a time. Clients read this text and histories re-encode it.

A token stands for bytes, and a character may be spread over several tokens. A stream returns text as soon as it is
complete and never takes it back, so the joined text does not depend on how the tokens were split up.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from copy import copy

from mapping_cache import CanonicalVocabulary


class TextStream:
    """Turns a growing list of token ids into a growing text.

    Special tokens give no text. Bytes that cannot begin or continue a character become U+FFFD. An incomplete character
    is held back. To read a continuation, push its prompt first and drop the prompt's text.
    """

    def __init__(self, vocabulary: CanonicalVocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drop_space = vocabulary.dummy_prefix != "none"

    def copy(self) -> TextStream:
        """An independent copy."""
        other = copy(self)
        other._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        other._decoder.setstate(self._decoder.getstate())
        return other

    def push(self, token_ids: Iterable[int]) -> str:
        """The text that these ids complete. May be empty."""
        return "".join(self.push_one(token_id) for token_id in token_ids)

    def push_one(self, token_id: int) -> str:
        """The text that one more id completes."""
        piece = self._vocabulary.tokens[token_id]
        if piece is None:
            return self._special()
        if self._drop_space and piece:
            self._drop_space = False
            piece = piece.removeprefix(b" ")
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """The rest at the end of the tokens: U+FFFD for a character that was never completed."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text

    def peek(self, token_id: int) -> str | None:
        """The text that one more id would complete; None for a special token or one that ends inside a character."""
        if self._vocabulary.tokens[token_id] is None:
            return None
        state, drop_space = self._decoder.getstate(), self._drop_space
        text = self.push_one(token_id)
        complete = not self._decoder.getstate()[0]
        self._decoder.setstate(state)
        self._drop_space = drop_space
        return text if complete else None

    def _special(self) -> str:
        # A special token ends a segment of text, and the tokenizer starts the next segment afresh.
        text = self.finish()
        if self._vocabulary.dummy_prefix == "always":
            self._drop_space = True
        return text


def decode(vocabulary: CanonicalVocabulary, token_ids: Iterable[int]) -> str:
    """The text of a whole list of ids."""
    stream = TextStream(vocabulary)
    return stream.push(token_ids) + stream.finish()


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of tokens that two encodings share from their start."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))

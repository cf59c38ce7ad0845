"""Keeps special tokens out of what clients write, so that no message can forge the turns of a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")

_FIRST_MARK = 0xF0000
"""The first character of a Unicode plane for private use: no ordinary text contains them."""


class SpecialTokenMask:
    """Hides the surfaces of special tokens in what a client sent.

    A surface that is found in the rendered conversation is then the chat template's own.
    """

    def __init__(self, specials: Mapping[int, str]) -> None:
        self._ids = {surface: token_id for token_id, surface in specials.items() if surface}
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._surfaces = longest_first
        self.used = False

    def hide(self, value: Value) -> Value:
        """A copy of `value` in which each surface, in strings and keys at any depth, is replaced by a mark."""
        hidden: Any = value
        if isinstance(value, str):
            hidden = self._special.sub(self._mark, value)
        elif isinstance(value, Mapping):
            hidden = {self.hide(key): self.hide(item) for key, item in value.items()}
        elif isinstance(value, list):
            hidden = [self.hide(item) for item in value]
        result: Value = hidden
        return result

    def pieces(self, rendered: str) -> Iterator[str | int]:
        """The rendered conversation as texts, with the marks undone, and the ids of the special tokens between them."""
        start = 0
        for match in self._special.finditer(rendered):
            if match.start() > start:
                yield self._show(rendered[start : match.start()])
            yield self._ids[match.group()]
            start = match.end()
        if start < len(rendered):
            yield self._show(rendered[start:])

    def _mark(self, match: re.Match[str]) -> str:
        self.used = True
        return chr(_FIRST_MARK + self._surfaces.index(match.group()))

    def _show(self, text: str) -> str:
        return "".join(
            self._surfaces[ord(letter) - _FIRST_MARK]
            if 0 <= ord(letter) - _FIRST_MARK < len(self._surfaces)
            else letter
            for letter in text
        )

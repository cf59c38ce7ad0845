"""Finds the end of an object of JSON whose text arrives in pieces."""

from __future__ import annotations

import re

_MARKS = re.compile(r'["\\{}\[\]]')


class JsonObject:
    """Follows the text of one object, which begins with its brace. The text must be JSON, as grammars make it."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped_until = 0
        self._read = 0
        self.ended = False

    def push(self, text: str) -> int:
        """The number of characters of `text` that belong to the object: all of them until it has `ended`."""
        for match in _MARKS.finditer(text):
            place, mark = match.start(), match.group()
            if self._read + place < self._escaped_until:
                continue
            if mark == "\\":
                self._escaped_until = self._read + place + 2
            elif mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if mark in "{[" else -1
                if self._depth <= 0:
                    self.ended = True
                    return place + 1
        self._read += len(text)
        return len(text)

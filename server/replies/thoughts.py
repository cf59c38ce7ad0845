"""Tells the thoughts at the beginning of an answer from its text."""

from __future__ import annotations

_OPENING, _CLOSING = "<think>", "</think>"
THOUGHT_TAGS = frozenset({_OPENING, _CLOSING})
"""The tags around thoughts. Where one is a special token, it must be read as text all the same."""


class ThoughtReader:
    """Separates thoughts in tags from the text after them, in the same way however the answer is split into pieces.

    `inside`: the prompt has opened the tag already. White space around the tags is dropped. Text that does not begin
    with the tag has no thoughts.
    """

    def __init__(self, *, inside: bool) -> None:
        self._state = "thoughts" if inside else "start"
        self._begun = False
        self._held = ""

    def push(self, text: str, *, final: bool) -> tuple[str, str]:
        """The thoughts and the text that are certain after `text`. `final`: no more will come."""
        self._held += text
        thoughts = ""
        if self._state == "start":
            self._start(final)
        if self._state == "thoughts":
            thoughts = self._think(final)
        if self._state == "after" and (rest := self._held.lstrip()):
            self._state, self._held = "text", rest
        content = ""
        if self._state == "text":
            content, self._held = self._held, ""
        return thoughts, content

    def _start(self, final: bool) -> None:
        begun = self._held.lstrip()
        if begun.startswith(_OPENING):
            self._state, self._held = "thoughts", begun.removeprefix(_OPENING)
        elif final or not _OPENING.startswith(begun):
            self._state = "text"

    def _think(self, final: bool) -> str:
        if not self._begun:
            self._held = self._held.lstrip()
            self._begun = bool(self._held)
        thoughts, found, rest = self._held.partition(_CLOSING)
        if found:
            self._state, self._held = "after", rest
            return thoughts.rstrip()
        size = len(thoughts) if final else len(thoughts) - _possible_beginning(thoughts)
        # White space may stand before the tag.
        size = len(thoughts[:size].rstrip())
        self._held = thoughts[size:] if not final else ""
        return thoughts[:size]


def _possible_beginning(text: str) -> int:
    """The length of the longest end of `text` that begins the closing tag."""
    sizes = range(min(len(_CLOSING) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(_CLOSING[:size])), 0)

"""Reads function calls out of text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Collection

from server.tools.call_formats import Call, NotACallError, ToolFormat


class ToolCallReader:
    """Separates a stream of text into content and calls, in the same way however the text is split into pieces.

    Text that may begin a call is held back until it is certain; if it is not a call, it is content. White space before
    calls is dropped, and so are the characters that separate calls. Without `parallel`, all text after the first call
    is dropped.
    """

    def __init__(self, form: ToolFormat, names: Collection[str], *, parallel: bool = True) -> None:
        self._form = form
        self._names = names
        self._parallel = parallel
        self._held = ""
        self._inside = False
        self._content = False
        # Whether content has followed the latest call; only until then may separators be dropped.
        self._content_after = False
        self.calls = 0

    def push(self, text: str) -> list[str | Call]:
        """The content and the calls that are certain after `text`."""
        self._held += text
        # Within a call nothing can have become complete before one of these closing characters arrives.
        return [] if self._inside and not any(mark in text for mark in "}]>") else self._read(final=False)

    def finish(self) -> list[str | Call]:
        """The content and the calls that were held back; no more text will come."""
        return self._read(final=True)

    def _read(self, *, final: bool) -> list[str | Call]:
        parts: list[str | Call] = []
        while self._held and not (self.calls and not self._parallel):
            if not self._inside and not self._find(parts, final):
                break
            try:
                found = self._form.read(self._held.lstrip(), self._names, final=final)
            except NotACallError:
                self._give_up(parts)
                continue
            if found is None:
                break
            calls, self._held = found
            self._inside = False
            kept = calls if self._parallel else calls[:1]
            self.calls += len(kept)
            self._content_after = False
            parts.extend(kept)
        return parts

    def _find(self, parts: list[str | Call], final: bool) -> bool:
        """Finds the beginning of a call in the held text, and appends the content before it to `parts`."""
        if self.calls and not self._content_after:
            self._held = self._held.lstrip(self._form.between)
        start = self._opening()
        if start is not None:
            self._inside = True
            self._pass(parts, len(self._held[:start].rstrip()))
        else:
            self._pass(parts, len(self._held) if final else self._certain())
        return start is not None

    def _opening(self) -> int | None:
        if not self._form.anywhere:
            start = len(self._held) - len(self._held.lstrip())
            begins = not self._content and self._held.startswith(self._form.openings, start)
            return start if begins else None
        places = [place for mark in self._form.openings if (place := self._held.find(mark)) >= 0]
        return min(places, default=None)

    def _certain(self) -> int:
        """The number of held characters that are content whatever follows.

        The prefix of an opening at the end is not, nor is the white space before it.
        """
        if self._content and not self._form.anywhere:
            return len(self._held)
        size = len(self._held)
        for mark in self._form.openings:
            lengths = range(min(len(mark) - 1, len(self._held)), 0, -1)
            begun = next((length for length in lengths if self._held.endswith(mark[:length])), 0)
            size = min(size, len(self._held) - begun)
        certain = len(self._held[:size].rstrip())
        return len(self._held) if certain and not self._form.anywhere else certain

    def _pass(self, parts: list[str | Call], size: int) -> None:
        if size:
            parts.append(self._held[:size])
            self._content = self._content_after = True
        self._held = self._held[size:]

    def _give_up(self, parts: list[str | Call]) -> None:
        """Passes on an opening as content, since the held text is not a call."""
        self._inside = False
        start = len(self._held) - len(self._held.lstrip())
        opening = next(mark for mark in self._form.openings if self._held.startswith(mark, start))
        self._pass(parts, start + len(opening))

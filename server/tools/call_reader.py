"""Reads function calls out of text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from server.tools.call_formats import Call, NotACallError, ToolFormat
from server.tools.json_object import JsonObject


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call whose function is known and whose arguments follow as `CallText`."""

    name: str


@dataclass(frozen=True, slots=True)
class CallText:
    """More of the arguments of the call that was begun last."""

    arguments: str


Part = str | Call | CallBegun | CallText


class ToolCallReader:
    """Separates a stream of text into content and calls, in the same way however the text is split into pieces.

    Text that may begin a call is held back until it is certain; if it is not a call, it is content. White space before
    calls is dropped, and so are the characters that separate calls. Without `parallel`, all text after the first call
    is dropped.

    `held`: a grammar holds each call that begins as the format writes it, so its arguments are passed on as they come,
    and a call that is cut off is no content. `demanded`: there is nothing but such calls.
    """

    def __init__(
        self,
        form: ToolFormat,
        names: Collection[str],
        *,
        parallel: bool = True,
        held: bool = False,
        demanded: bool = False,
    ) -> None:
        self._form = form
        self._names = names
        self._parallel = parallel
        self._beginnings = form.beginnings(names) if held else {}
        self._demanded = demanded
        self._held = ""
        self._inside = False
        self._may_be_whole = True
        self._content = False
        # The arguments that are being passed on, and after them the strings that close their call.
        self._arguments: JsonObject | None = None
        self._closing: list[str] = []
        # Whether content has followed the latest call; only until then may separators be dropped.
        self._content_after = False
        self.calls = 0

    def push(self, text: str) -> list[Part]:
        """The content and the calls that are certain after `text`."""
        # Within a call nothing can have become complete before one of these closing characters arrives.
        self._may_be_whole = not self._inside or any(mark in text for mark in "}]>")
        self._held += text
        return self._read(final=False)

    def finish(self) -> list[Part]:
        """The content and the calls that were held back; no more text will come."""
        parts = self._read(final=True)
        return [part for part in parts if not isinstance(part, str)] if self._demanded else parts

    def _read(self, *, final: bool) -> list[Part]:
        parts: list[Part] = []
        while self._held and (self._arguments or self._parallel or not self.calls):
            if self._arguments is not None:
                self._pass_arguments(parts, self._arguments)
                continue
            if not self._closed(final):
                break
            if not self._inside and not self._find(parts, final):
                break
            begun = self._begin(parts, final)
            if begun is None:
                break
            if not begun and not self._read_whole(parts, final):
                break
        return parts

    def _pass_arguments(self, parts: list[Part], arguments: JsonObject) -> None:
        size = arguments.push(self._held)
        parts.append(CallText(self._held[:size]))
        self._held = self._held[size:]
        if arguments.ended:
            self._arguments = None
            self._closing = list(self._form.closing)

    def _closed(self, final: bool) -> bool:
        """Drops what closes a call; False while more of it may come."""
        while self._closing:
            rest, mark = self._held.lstrip(), self._closing[0]
            if mark == "]" and rest.startswith(","):
                # Another object of the list: it is read like the first of a list.
                self._held = f"{self._form.openings[0]} [{rest[1:].lstrip()}"
                self._closing, self._inside = [], True
                break
            if len(rest) < len(mark) and mark.startswith(rest):
                if not final:
                    return False
                rest = ""
            self._held = rest.removeprefix(mark)
            self._closing.pop(0)
        return True

    def _begin(self, parts: list[Part], final: bool) -> bool | None:
        """Begins a call that a grammar holds; False where it is none, None where that is not certain yet."""
        text = self._held.lstrip()
        for beginning, name in self._beginnings.items():
            if text.startswith(beginning):
                self._held = text[len(beginning) :]
                self._arguments, self._inside, self._content_after = JsonObject(), False, False
                self.calls += 1
                parts.append(CallBegun(name))
                return True
        if any(beginning.startswith(text) for beginning in self._beginnings):
            if final and (self._demanded or text.startswith(self._mark())):
                self._held = ""
            return None if not final or not self._held else False
        return False

    def _mark(self) -> str:
        """The mark from which on a grammar holds calls; where calls have none, no text is certain to be one."""
        return self._form.openings[0] if self._form.anywhere else "\0"

    def _read_whole(self, parts: list[Part], final: bool) -> bool:
        """Reads calls that are passed on whole; False where more text is needed."""
        if not final and not self._may_be_whole:
            return False
        try:
            found = self._form.read(self._held.lstrip(), self._names, final=final)
        except NotACallError:
            self._give_up(parts)
            return True
        if found is None:
            return False
        calls, self._held = found
        self._inside = False
        kept = calls if self._parallel else calls[:1]
        self.calls += len(kept)
        self._content_after = False
        parts.extend(kept)
        return True

    def _find(self, parts: list[Part], final: bool) -> bool:
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

    def _pass(self, parts: list[Part], size: int) -> None:
        if size:
            parts.append(self._held[:size])
            self._content = self._content_after = True
        self._held = self._held[size:]

    def _give_up(self, parts: list[Part]) -> None:
        """Passes on an opening as content, since the held text is not a call."""
        self._inside = False
        start = len(self._held) - len(self._held.lstrip())
        opening = next(mark for mark in self._form.openings if self._held.startswith(mark, start))
        self._pass(parts, start + len(opening))

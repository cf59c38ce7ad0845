"""Stop strings over text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Cuts a stream of text at the first stop string, however the text is split into pieces.

    The first stop string is the one that *ends* first; of several that end together, the longest. Text that may be the
    beginning of a stop string is held back, so that no prefix of one is ever passed on (law 6).
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._include = include
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str, *, armed: bool = True) -> str:
        """The text that may be passed on after `text` has arrived; "" once a stop string has matched.

        While not `armed`, all text is passed on and nothing matches: text before `min_tokens` cannot end an answer.
        """
        if self.matched is not None:
            return ""
        text = self._held + text
        if not armed:
            self._held = ""
            return text
        found = self._first(text)
        if found is not None:
            start, stop = found
            self.matched, self._held = stop, ""
            return text[: start + len(stop)] if self._include else text[:start]
        keep = self._possible_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The text that is still held back; no more will come."""
        held, self._held = self._held, ""
        return held

    def _first(self, text: str) -> tuple[int, str] | None:
        hits = [(start, stop) for stop in self._stops if (start := text.find(stop)) >= 0]
        return min(hits, key=lambda hit: (hit[0] + len(hit[1]), hit[0]), default=None)

    def _possible_beginning(self, text: str) -> int:
        """The length of the longest suffix of `text` that is a prefix of a stop string."""
        # Bounded by the letters of all stop strings, however many there are.
        longest = 0
        for stop in self._stops:
            sizes = range(min(len(stop) - 1, len(text)), longest, -1)
            longest = next((size for size in sizes if text.endswith(stop[:size])), longest)
        return longest

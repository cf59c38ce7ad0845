"""Matches by prefix, in time linear in the number of characters, over `bytes` or `str`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import AnyStr, Generic

from mapping_cache.matching.match import Match, MatchKind


@dataclass(slots=True)
class _Open(Generic[AnyStr]):
    """A string on the stack of prefixes.

    `token` is its steering id, -1 if only the base has the string. `extension` is the length and the steering id of
    the shortest steering string seen so far that begins with it.
    """

    string: AnyStr
    token: int
    wanted: bool
    extension: tuple[int, int] | None = None


def prefix_matches(
    wanted: Iterable[AnyStr], steering: Mapping[AnyStr, int], marker: AnyStr
) -> dict[AnyStr, Match]:
    """The nearest prefix or extension of each wanted string among the steering strings (PM-MinED, steps 3 to 5).

    `steering` gives the lowest id of each distinct string; no wanted string may be in it. `marker` (one space) is a
    candidate only for strings that consist of markers. Ties go to the lowest id. Strings without a candidate are left
    out.

    In sorted order the extensions of a string follow it without a gap. So, as with nested brackets, a stack of the
    strings that are still open holds exactly the prefixes of the next string. Each string is pushed once and compared
    once with each of its prefixes, which are at most as many as its length. The Levenshtein distance between a string
    and its prefix is the difference in length.
    """
    wanted = set(wanted)
    stack: list[_Open[AnyStr]] = []
    found: dict[AnyStr, Match] = {}

    def close() -> None:
        top = stack.pop()
        if top.wanted:
            match = _nearest(top, stack, marker)
            if match is not None:
                found[top.string] = match

    for string in sorted(wanted.union(steering)):
        while stack and not string.startswith(stack[-1].string):
            close()
        token = steering.get(string, -1)
        if token >= 0:
            candidate = (len(string), token)
            for prefix in reversed(stack):
                if not prefix.wanted:
                    continue
                if string == marker and prefix.string.strip(marker):
                    continue
                if prefix.extension is None or candidate < prefix.extension:
                    prefix.extension = candidate
        stack.append(_Open(string, token, string in wanted))
    while stack:
        close()
    return found


def _nearest(entry: _Open[AnyStr], prefixes: list[_Open[AnyStr]], marker: AnyStr) -> Match | None:
    """The nearer of the longest steering prefix and the shortest extension."""
    length = len(entry.string)
    best: tuple[int, int] | None = None  # (distance, steering id)
    only_markers = not entry.string.strip(marker)
    for prefix in reversed(prefixes):
        if prefix.token >= 0 and (only_markers or prefix.string != marker):
            best = (length - len(prefix.string), prefix.token)
            break
    kind = MatchKind.PREFIX
    if entry.extension is not None:
        extension = (entry.extension[0] - length, entry.extension[1])
        if best is None or extension < best:
            best, kind = extension, MatchKind.EXTENSION
    if best is None:
        return None
    distance, token = best
    longest = length if kind is MatchKind.PREFIX else length + distance
    return Match(token, kind, 1.0 - distance / longest)

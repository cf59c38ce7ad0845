"""Grammars that leave text free, and hold a call from its opening mark on."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TEXT = "TEXT: /(.|\\n)+/\n"


def any_text(others: str) -> str:
    """The grammar's expression for any text with the special tokens `others`; it needs the rule that it brings.

    `others` is empty where there are none.
    """
    return "any_text" if others else "TEXT?"


def text_rules(others: str) -> str:
    """The rules that `any_text` and `free_rules` refer to."""
    return _TEXT + (f"any_text: (TEXT? {others})* TEXT?\n" if others else "")


def free_rules(opening: str, others: str, *, parallel: bool) -> str:
    """The rule `free`: any text, in which `opening` must be followed by the rule `written`.

    `opening` is a special token or a quoted string, in the grammar's form. The text before it is matched lazily, so
    that no text can contain the opening without what must follow.
    """
    if opening.startswith("<["):
        opened = f"opened: TEXT? {opening} written\n"
    else:
        opened = f"opening[lazy]: /(.|\\n)*{_escaped(opening)}/\nopened: opening written\n"
    other = f"(TEXT? {others})* " if others else ""
    free = f"({other}opened)* {any_text(others)}" if parallel else f"{other}(opened | TEXT)?"
    return f"free: {free}\n{opened}"


def token_ranges(ids: Iterable[int]) -> str:
    """Token ids in the grammar's form, `<[1-3,7]>`; "" for none."""
    runs: list[list[int]] = []
    for token in sorted(ids):
        if runs and runs[-1][1] == token - 1:
            runs[-1][1] = token
        else:
            runs.append([token, token])
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    return f"<[{','.join(parts)}]>" if parts else ""


def _escaped(quoted: str) -> str:
    # The openings have no escapes in their quotes.
    return re.escape(quoted.strip('"')).replace("/", "\\/")

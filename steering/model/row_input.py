"""What a pass over one model is given of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowInput:
    """New tokens of one row: they stand at positions `start`, `start + 1`, ...; `pages` cover them all.

    Logits are wanted from the new token number `logits_from` on (`len(tokens)`: none).
    """

    tokens: Sequence[int]
    start: int
    pages: Sequence[int]
    logits_from: int


def wanted_tokens(rows: Sequence[RowInput]) -> list[int]:
    """Which of the packed tokens logits are wanted of."""
    wanted: list[int] = []
    offset = 0
    for row in rows:
        wanted.extend(range(offset + row.logits_from, offset + len(row.tokens)))
        offset += len(row.tokens)
    return wanted

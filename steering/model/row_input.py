"""One row's part in a forward pass: its new tokens, their positions and their pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowInput:
    """New tokens of one row at positions `start`, `start + 1`, ...; `pages` cover them and everything before them.

    The pass returns logits of the new tokens from index `logits_from` on (`len(tokens)`: of none).
    """

    tokens: Sequence[int]
    start: int
    pages: Sequence[int]
    logits_from: int


def wanted_tokens(rows: Sequence[RowInput]) -> list[int]:
    """Indices of the packed tokens whose logits are wanted, in order."""
    wanted: list[int] = []
    offset = 0
    for row in rows:
        wanted.extend(range(offset + row.logits_from, offset + len(row.tokens)))
        offset += len(row.tokens)
    return wanted

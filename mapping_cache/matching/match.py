"""One token's match."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class MatchKind(IntEnum):
    """How a base token was matched.

    EXACT: a steering token of the same bytes (or surface). PREFIX: the steering token is a proper prefix of the base
    token. EXTENSION: the base token is a proper prefix of the steering token. EDIT: the nearest steering token by edit
    distance. SPECIAL: a special token of the same surface or role.
    """

    UNMATCHED = 0
    EXACT = 1
    PREFIX = 2
    EXTENSION = 3
    EDIT = 4
    SPECIAL = 5


@dataclass(frozen=True, slots=True)
class Match:
    """A steering token (`token`, its id), how it was found, and its similarity to the base token in 0..1."""

    token: int
    kind: MatchKind
    similarity: float

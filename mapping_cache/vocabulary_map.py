"""The vocabulary map: for each base token the steering token whose shift it receives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_DTYPES = {"ids": np.int32, "nearest": np.int32, "kind": np.uint8, "similarity": np.float32}


class MatchKind(IntEnum):
    """How a base token was matched.

    PREFIX: the steering token is a proper prefix of the base token; EXTENSION: the other way round;
    EDIT: nearest by edit distance; SPECIAL: special tokens of equal surface or role.
    """

    UNMATCHED = 0
    EXACT = 1
    PREFIX = 2
    EXTENSION = 3
    EDIT = 4
    SPECIAL = 5


@dataclass(frozen=True, slots=True, eq=False)
class VocabularyMap:
    """For each base token the steering token whose shift it receives, and how good that match is.

    `ids` int32 `[V_base]`: steering id, below `steering_size`, or -1 where the token gets no shift.
    `nearest` int32 `[V_base]`: the best match found, also where it was too weak to be let through (-1: none).
    `kind` uint8 `[V_base]` (`MatchKind`) and `similarity` float32 `[V_base]` in 0..1 describe `nearest`, so
    that a report can say what was refused; only `ids` decides what is steered.
    The arrays are read-only. `fingerprint` identifies both vocabularies and every parameter.
    """

    ids: NDArray[np.int32]
    nearest: NDArray[np.int32]
    kind: NDArray[np.uint8]
    similarity: NDArray[np.float32]
    steering_size: int
    fingerprint: str

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != self.ids.shape or array.ndim != 1:
                raise ValueError(f"{name} must be {np.dtype(dtype).name} of shape [V_base]")
            array.setflags(write=False)
        for name in ("ids", "nearest"):
            array = getattr(self, name)
            if array.size and (array.min() < -1 or array.max() >= self.steering_size):
                raise ValueError(f"{name} must lie in -1..{self.steering_size - 1}")
        if self.kind.size and self.kind.max() > max(MatchKind):
            raise ValueError("kind holds an unknown value")

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VocabularyMap):
            return NotImplemented
        return (self.steering_size, self.fingerprint) == (other.steering_size, other.fingerprint) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in _DTYPES
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def is_identity(self) -> bool:
        """Whether both vocabularies are one and a shift can be added as it is, without a gather."""
        return len(self.ids) == self.steering_size and bool(
            np.array_equal(self.ids, np.arange(self.steering_size, dtype=np.int32))
        )

    def counts(self, *, refused: bool = False) -> dict[str, int]:
        """Base tokens by kind in lower case, "unmatched" being those that get no shift.

        With `refused`, matches too weak to be let through are counted under the kind they would have had.
        """
        kind = self.kind if refused else np.where(self.ids >= 0, self.kind, np.uint8(MatchKind.UNMATCHED))
        totals = np.bincount(kind, minlength=len(MatchKind))
        return {member.name.lower(): int(totals[member]) for member in MatchKind}

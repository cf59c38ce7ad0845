"""The vocabulary map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mapping_cache.matching.match import MatchKind

_DTYPES = {"ids": np.int32, "nearest": np.int32, "kind": np.uint8, "similarity": np.float32}


@dataclass(frozen=True, slots=True, eq=False)
class VocabularyMap:
    """For each base token the steering token whose shift it receives, and how good that match is.

    `ids`: int32 `[V_base]`, the steering id, below `steering_size`, or -1 where the token gets no shift.
    `nearest`: int32 `[V_base]`, the best match found, even if it was too weak for a shift; -1 where there is none.
    `kind`: uint8 `[V_base]`, the `MatchKind` of `nearest`.
    `similarity`: float32 `[V_base]` in 0..1, the similarity of `nearest`.
    `fingerprint`: a hex digest of both vocabularies and of every option.

    Only `ids` decides which tokens are steered; the other arrays let a report show refused matches. All arrays are
    read-only. Raises `ValueError` on an array of another dtype or shape, or with values out of range.
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
        """Whether both vocabularies are the same, so that a shift can be added without a gather."""
        return len(self.ids) == self.steering_size and bool(
            np.array_equal(self.ids, np.arange(self.steering_size, dtype=np.int32))
        )

    def counts(self, *, refused: bool = False) -> dict[str, int]:
        """The number of base tokens of each kind (in lower case); "unmatched" are those that get no shift.

        With `refused`, a match that was too weak for a shift is counted under its kind instead.
        """
        kind = self.kind if refused else np.where(self.ids >= 0, self.kind, np.uint8(MatchKind.UNMATCHED))
        totals = np.bincount(kind, minlength=len(MatchKind))
        return {member.name.lower(): int(totals[member]) for member in MatchKind}

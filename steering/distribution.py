"""The steered distribution at every position that a step needs: where the next token is drawn or a prompt is scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steering.fusion import fuse
from steering.sequence import Sequence
from steering.shift import scaled_shift
from steering.steerer import Steerer, SteeringRow


@dataclass(frozen=True, slots=True)
class Position:
    """The distribution after the first `length` tokens of a sequence."""

    sequence: Sequence
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Distributions:
    """Log probabilities of the base and steered, and the shift between them, each float32 `[positions, V_base]`."""

    base: Tensor
    steered: Tensor
    shift: Tensor | None

    def select(self, rows: list[int]) -> Distributions:
        """The same for some of the positions."""
        if len(rows) == self.base.shape[0]:
            return self
        return Distributions(
            self.base[rows], self.steered[rows], None if self.shift is None else self.shift[rows]
        )


class StepModels:
    """Runs the steering models that a step's positions need."""

    def __init__(self, positions: list[Position]) -> None:
        self._positions = positions

    def fuse(self, base_logits: Tensor) -> Distributions:
        """base_logits float32 `[positions, V_base]` -> the distributions there (DESIGN: fusion)."""
        base = base_logits.log_softmax(-1)
        if not any(position.sequence.rows for position in self._positions):
            return Distributions(base, base, None)
        shift = torch.zeros_like(base)
        for wave in self._waves():
            self._run_wave(wave, base, shift)
        return Distributions(base, fuse(base, shift), shift)

    def _waves(self) -> list[list[int]]:
        """Positions in groups that can run together: a history can stand at only one length at a time.

        A decode step is one wave. Scoring a prompt takes a wave a position, except that consecutive positions go
        together where every history is the base's own tokens.
        """
        waves: list[list[int]] = []
        placed: dict[int, int] = {}
        for index, position in enumerate(self._positions):
            sequence = position.sequence
            if not sequence.rows:
                continue
            wave = placed.get(id(sequence), -1) + 1
            if wave and all(row.takes_many(position.length) for row in sequence.rows):
                wave -= 1
            placed[id(sequence)] = wave
            if wave == len(waves):
                waves.append([])
            waves[wave].append(index)
        return waves

    def _run_wave(self, wave: list[int], base: Tensor, shift: Tensor) -> None:
        """Advance the histories of a wave's positions and add their shifts."""
        jobs: dict[Steerer, list[tuple[SteeringRow, list[int]]]] = {}
        indices: dict[int, list[int]] = {}
        for index in wave:
            indices.setdefault(id(self._positions[index].sequence), []).append(index)
        for theirs in indices.values():
            position = self._positions[theirs[-1]]
            for row in position.sequence.rows:
                row.advance(position.sequence.tokens[: position.length])
                jobs.setdefault(row.steerer, []).append((row, theirs))
        for steerer, rows in jobs.items():
            where = torch.tensor([i for _, theirs in rows for i in theirs], device=base.device)
            wanted = [len(theirs) for _, theirs in rows]
            bridged = scaled_shift(steerer, [row for row, _ in rows], wanted, base[where])
            shift.index_add_(0, where, bridged)

"""The steered distribution at every position that a step needs: where the next token is drawn or a prompt is scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steering.bridge import Bridged
from steering.fusion import add_shift
from steering.sequence import Sequence
from steering.shift import bridged_shift
from steering.steerer import Steerer, SteeringRow
from steering.step_report import StepReport
from steering.types import BridgeName


@dataclass(frozen=True, slots=True)
class Position:
    """The distribution after the first `length` tokens of a sequence."""

    sequence: Sequence
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Distributions:
    """Scores of the base and steered, each float32 `[positions, V_base]`: log probabilities up to a row's constant.

    `steered - base` is the shift. Both are one tensor where nothing is steered. `columns`: int64 `[M]`, the only tokens
    whose scores differ, or None where they may all.
    """

    base: Tensor
    steered: Tensor
    columns: Tensor | None = None

    def select(self, rows: list[int]) -> Distributions:
        """The same for some of the positions, in ascending order."""
        if len(rows) == self.base.shape[0]:
            return self
        base = self.base[rows]
        return Distributions(base, base if self.steered is self.base else self.steered[rows], self.columns)


class StepModels:
    """Runs the steering models that a step's positions need."""

    def __init__(self, positions: list[Position]) -> None:
        self._positions = positions

    def fuse(self, base: Tensor, report: StepReport) -> Distributions:
        """The base's logits float32 `[positions, V_base]` -> the distributions there (DESIGN: fusion)."""
        waves = self._waves()
        if not waves:
            return Distributions(base, base)
        steered = base.clone()
        shifts = [shift for wave in waves for shift in self._run_wave(wave, base, steered, report)]
        alone = len(shifts) == 1 and shifts[0].corrections is None
        return Distributions(base, steered, shifts[0].columns if alone else None)

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

    def _run_wave(self, wave: list[int], base: Tensor, steered: Tensor, report: StepReport) -> list[Bridged]:
        """Advance the histories of a wave's positions and add their shifts to `steered`; returns the shifts."""
        indices: dict[int, list[int]] = {}
        for index in wave:
            indices.setdefault(id(self._positions[index].sequence), []).append(index)
        jobs: dict[tuple[Steerer, BridgeName], list[tuple[SteeringRow, list[int]]]] = {}
        for theirs in indices.values():
            position = self._positions[theirs[-1]]
            for row in position.sequence.rows:
                row.advance(position.sequence.tokens, position.length)
                jobs.setdefault((row.steerer, row.bridge), []).append((row, theirs))
        return [
            self._steer(steerer, bridge, members, base, steered, report)
            for (steerer, bridge), members in jobs.items()
        ]

    def _steer(
        self,
        steerer: Steerer,
        bridge: BridgeName,
        members: list[tuple[SteeringRow, list[int]]],
        base: Tensor,
        steered: Tensor,
        report: StepReport,
    ) -> Bridged:
        """Add one adapter's shift at the positions of the rows that reach the base by one bridge."""
        rows = [row for row, _ in members]
        wanted = [len(theirs) for _, theirs in members]
        specs = [row.spec for row, theirs in members for _ in theirs]
        alphas = torch.tensor([spec.alpha for spec in specs], device=base.device)
        indices = [i for _, theirs in members for i in theirs]
        # Most often a batch has one adapter, and no row need be copied out and back.
        everyone = indices == list(range(base.shape[0]))
        where = torch.tensor(indices, device=base.device)
        theirs, part = (base, steered) if everyone else (base[where], steered[where])
        shift = bridged_shift(steerer, bridge, rows, wanted, theirs, alphas)
        report.lap("steering")
        add_shift(part, theirs, shift, alphas, [spec.top_k for spec in specs])
        if not everyone:
            steered[where] = part
        report.lap("fuse_sample")
        return shift

"""The steered distribution at every position that a step needs: where the next token is drawn or a prompt is scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.fusion import add_shift
from steering.sequence import Sequence
from steering.shift import bridged_shift
from steering.steerer import Steerer, SteeringRow
from steering.step_report import StepReport
from steering.types import BridgeName
from steering.views import lend


@dataclass(frozen=True, slots=True)
class Position:
    """The distribution after the first `length` tokens of a sequence."""

    sequence: Sequence
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Distributions:
    """Scores of the base and steered, each float32 `[positions, V_base]`: log probabilities up to a row's constant.

    `steered - base` is the shift. Both are one tensor where nothing is steered.
    """

    base: Tensor
    steered: Tensor

    def select(self, rows: list[int]) -> Distributions:
        """The same for some of the positions, in ascending order."""
        if len(rows) == self.base.shape[0]:
            return self
        base = self.base[rows]
        return Distributions(base, base if self.steered is self.base else self.steered[rows])


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
        for wave in waves:
            self._run_wave(wave, base, steered, report)
        return Distributions(base, steered)

    def _waves(self) -> list[list[int]]:
        """Positions in groups that can run together: mostly one.

        Where a history is longer than its model's context it is cut, differently at each length; then scoring a prompt
        takes a wave a position.
        """
        waves: list[list[int]] = []
        for indices in self._by_sequence(range(len(self._positions))):
            sequence, last = self._positions[indices[-1]].sequence, self._positions[indices[-1]].length
            if not sequence.rows:
                continue
            together = (
                all(row.takes_many(sequence.tokens, last) for row in sequence.rows)
                if len(indices) > 1
                else True
            )
            for number, part in enumerate([indices] if together else [[index] for index in indices]):
                if number == len(waves):
                    waves.append([])
                waves[number] += part
        return waves

    def _by_sequence(self, indices: Iterable[int]) -> list[list[int]]:
        groups: dict[int, list[int]] = {}
        for index in indices:
            groups.setdefault(id(self._positions[index].sequence), []).append(index)
        return list(groups.values())

    def _run_wave(self, wave: list[int], base: Tensor, steered: Tensor, report: StepReport) -> None:
        """Advance the histories of a wave's positions and add their shifts to `steered`."""
        # A sequence may have one adapter twice: its rows go to different jobs, so that no job has a position twice.
        jobs: dict[tuple[Steerer, BridgeName, int], list[tuple[SteeringRow, list[int]]]] = {}
        borrowed: list[SteeringRow] = []
        for theirs in self._by_sequence(wave):
            sequence = self._positions[theirs[0]].sequence
            lengths = [self._positions[index].length for index in theirs]
            before: Counter[tuple[Steerer, BridgeName]] = Counter()
            for row in sequence.rows:
                kind = (row.steerer, row.bridge)
                job = jobs.setdefault((*kind, before[kind]), [])
                before[kind] += 1
                if len(theirs) > 1 and not row.steerer.shares_vocabulary:
                    views = row.at_each(sequence.tokens, lengths)
                    lend(row, views)
                    borrowed += views
                    job.extend((view, [index]) for view, index in zip(views, theirs, strict=True))
                else:
                    row.advance(sequence.tokens, lengths[-1])
                    job.append((row, theirs))
        for (steerer, bridge, _), members in jobs.items():
            self._steer(steerer, bridge, members, base, steered, report)
        broken = bool(borrowed) and not torch.isfinite(steered.amax())
        for row in borrowed:
            if broken:
                row.spoil()
            row.release()

    def _steer(
        self,
        steerer: Steerer,
        bridge: BridgeName,
        members: list[tuple[SteeringRow, list[int]]],
        base: Tensor,
        steered: Tensor,
        report: StepReport,
    ) -> None:
        """Add one adapter's shift at the positions of the rows that reach the base by one bridge."""
        rows = [row for row, _ in members]
        wanted = [len(theirs) for _, theirs in members]
        specs = [row.spec for row, theirs in members for _ in theirs]
        alphas = torch.tensor([spec.alpha for spec in specs], device=base.device)
        indices = [i for _, theirs in members for i in theirs]
        # Most often a batch has one adapter, and no row need be copied out and back.
        everyone = indices == list(range(base.shape[0]))
        where = torch.tensor(indices, device=base.device)
        before, part = (base, steered) if everyone else (base[where], steered[where])
        shift = bridged_shift(steerer, bridge, rows, wanted, before, alphas)
        report.lap("steering")
        add_shift(part, before, shift, alphas, [spec.top_k for spec in specs])
        if not everyone:
            steered[where] = part
        report.lap("fuse_sample")

"""The steered distribution at every position that a step needs: where the next token is drawn or a prompt is scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.device.side_stream import SideStream
from steering.device.transfer import on_device
from steering.engine.sequence import Sequence
from steering.engine.step_report import StepReport
from steering.session.fusion import add_shift
from steering.steerers.reading import bridged_shift, model_logits
from steering.steerers.steerer import Steerer, SteeringRow
from steering.steerers.views import lend
from steering.types import BridgeName


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
        where = on_device(rows, self.base.device)
        base = self.base.index_select(0, where)
        return Distributions(base, base if self.steered is self.base else self.steered.index_select(0, where))


@dataclass(slots=True)
class _Job:
    """Rows that one adapter steers by one bridge, each with the places of its positions in the step's tensors."""

    steerer: Steerer
    bridge: BridgeName
    members: list[tuple[SteeringRow, list[int]]]

    @property
    def rows(self) -> list[SteeringRow]:
        return [row for row, _ in self.members]

    @property
    def wanted(self) -> list[int]:
        return [len(places) for _, places in self.members]


class StepModels:
    """Runs the steering models that a step's positions need, beside what `side` has queued before."""

    def __init__(self, positions: list[Position], side: SideStream) -> None:
        self._positions = positions
        self._side = side

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
        # The third of a key is the how-manieth: a sequence may have one adapter twice, and no job has a position twice.
        jobs: dict[tuple[Steerer, BridgeName, int], _Job] = {}
        borrowed: list[SteeringRow] = []
        # All models' passes come first, for a device that can do them while it is still busy with the base's.
        with self._side.overlapped():
            for theirs in self._by_sequence(wave):
                borrowed += self._distribute(theirs, jobs)
            logits = [model_logits(job.steerer, job.rows, job.wanted) for job in jobs.values()]
        report.lap("steering")
        for job, own in zip(jobs.values(), logits, strict=True):
            self._steer(job, own, base, steered, report)
        broken = bool(borrowed) and not torch.isfinite(steered.amax())
        for row in borrowed:
            if broken:
                row.spoil()
            row.release()

    def _distribute(
        self, theirs: list[int], jobs: dict[tuple[Steerer, BridgeName, int], _Job]
    ) -> list[SteeringRow]:
        """Put one sequence's positions into the jobs, its histories advanced; returns rows that must be released."""
        sequence = self._positions[theirs[0]].sequence
        lengths = [self._positions[index].length for index in theirs]
        before: Counter[tuple[Steerer, BridgeName]] = Counter()
        borrowed: list[SteeringRow] = []
        for row in sequence.rows:
            kind = (row.steerer, row.bridge)
            job = jobs.setdefault((*kind, before[kind]), _Job(*kind, []))
            before[kind] += 1
            if len(theirs) > 1 and not row.steerer.shares_vocabulary:
                views = row.at_each(sequence.tokens, lengths)
                lend(row, views)
                borrowed += views
                job.members.extend((view, [index]) for view, index in zip(views, theirs, strict=True))
            else:
                row.advance(sequence.tokens, lengths[-1])
                job.members.append((row, theirs))
        return borrowed

    def _steer(
        self, job: _Job, logits: list[Tensor], base: Tensor, steered: Tensor, report: StepReport
    ) -> None:
        """Add one adapter's shift at the positions of its job."""
        specs = [row.spec for row, places in job.members for _ in places]
        places = [place for _, places in job.members for place in places]
        alphas = on_device([spec.alpha for spec in specs], base.device)
        # Most often a batch has one adapter, and no row need be copied out and back.
        everyone = places == list(range(base.shape[0]))
        where = on_device(places, base.device)
        before = base if everyone else base.index_select(0, where)
        part = steered if everyone else steered.index_select(0, where)
        shift = bridged_shift(job.steerer, job.bridge, job.rows, job.wanted, logits, before, alphas)
        report.lap("steering")
        add_shift(part, before, shift, alphas, [spec.top_k for spec in specs])
        if not everyone:
            steered.index_copy_(0, where, part)
        report.lap("fuse_sample")

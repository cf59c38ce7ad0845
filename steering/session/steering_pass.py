"""One pass over the steering models of a step's positions, adapter by adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from steering.device.side_stream import SideStream
from steering.device.transfer import on_device
from steering.session.faults import Faults, is_shared
from steering.session.fusion import add_shift
from steering.session.groups import Group, Part, groups_of, release, waves_of
from steering.session.row import Span

Lap = Callable[[Literal["steering", "fuse_sample"]], None]
"""Counts the time since the last call to a phase."""


class SteeringPass:
    """Runs the steering models beside the work that `side` has queued, and adds their shifts.

    `faults` holds the rows whose part raised. Their scores are undefined, and change nothing for other rows. A group
    that raises is run again member by member, to find the row at fault. A fault of the device or of a pool is raised.
    """

    def __init__(self, side: SideStream, lap: Lap) -> None:
        self.faults: Faults = {}
        self._side = side
        self._lap = lap

    def run(self, spans: Sequence[Span], base: Tensor) -> Tensor:
        """Steered scores from the base's scores, both float32 `[positions, V_base]`, span after span."""
        waves = waves_of(spans, self.faults)
        if not waves:
            return base
        steered = base.clone()
        for wave in waves:
            self._run_wave(wave, base, steered)
        return steered

    def _run_wave(self, wave: Sequence[Part], base: Tensor, steered: Tensor) -> None:
        groups: list[Group] = []
        try:
            # All models run before anything waits for one of them, so that a GPU can run them beside the base.
            with self._side.overlapped():
                groups = groups_of(wave, self.faults)
                ready = [each for group in groups for each in self._read(group)]
            self._lap("steering")
            for group, logits in ready:
                self._steer(group, logits, base, steered)
            self._invalidate_broken(groups, steered)
        finally:
            for group in groups:
                release(group.members)

    def _read(self, group: Group) -> list[tuple[Group, list[Tensor]]]:
        """The group with its models' logits; its members each by themselves where it raises."""
        try:
            return [(group, group.logits())]
        except Exception as error:
            if is_shared(error):
                raise
            # Some members may count as computed although the pass has failed, and may hold NaN.
            for member in group.members:
                member.state.invalidate()
                member.state.release()
            if len(group.members) > 1:
                return [each for single in group.split() for each in self._read(single)]
            self.faults[group.members[0].row] = error
            return []

    def _steer(self, group: Group, logits: list[Tensor], base: Tensor, steered: Tensor) -> None:
        """Add one adapter's shift at the positions of its group."""
        try:
            self._add(group, logits, base, steered)
        except Exception as error:
            if is_shared(error):
                raise
            if len(group.members) == 1:
                self.faults[group.members[0].row] = error
                return
            first = 0
            for single in group.split():
                last = first + len(single.places)
                self._steer(single, [part[first:last] for part in logits], base, steered)
                first = last

    def _add(self, group: Group, logits: list[Tensor], base: Tensor, steered: Tensor) -> None:
        states, places = group.states, group.places
        alphas = on_device([state.spec.alpha for state in states], base.device)
        # Most batches have one adapter for all rows, and then no row is copied out and back.
        everyone = places == list(range(base.shape[0]))
        where = on_device(places, base.device)
        before = base if everyone else base.index_select(0, where)
        shift = group.bridge(group.steerer, states, logits, before, alphas)
        self._lap("steering")
        weighed = group.steerer.adapter.rule.weigh(shift, before, alphas)
        part = steered if everyone else steered.index_select(0, where)
        add_shift(part, before, weighed, [state.spec.top_k for state in states])
        if not everyone:
            steered.index_copy_(0, where, part)
        self._lap("fuse_sample")

    def _invalidate_broken(self, groups: Sequence[Group], steered: Tensor) -> None:
        """Hide the work of borrowed states if a score is not finite, or is undefined after a fault."""
        borrowed = [m.state for group in groups for m in group.members if m.borrowed]
        if borrowed and (self.faults or not torch.isfinite(steered.amax())):
            for state in borrowed:
                state.invalidate()

"""One pass over the steering models of a step's positions, adapter by adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from steering.bridges.bridge import Bridge
from steering.bridges.table import bridge_for
from steering.device.side_stream import SideStream
from steering.device.transfer import on_device
from steering.session.fusion import add_shift
from steering.session.row import Span, SteeredRow
from steering.steerers.reading import read
from steering.steerers.state import SteererState
from steering.steerers.steerer import Steerer

Lap = Callable[[Literal["steering", "fuse_sample"]], None]
"""Counts the time since the last call to a phase."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Positions of one row that can run together. The first of them has the index `place` among the step's logits."""

    row: SteeredRow
    lengths: range
    place: int


@dataclass(slots=True)
class _Group:
    """The positions that one adapter steers by one bridge: states, positions of each, and the positions' places."""

    steerer: Steerer
    bridge: Bridge
    members: list[tuple[SteererState, int]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def add(self, state: SteererState, places: range) -> None:
        self.members.append((state, len(places)))
        self.places.extend(places)

    @property
    def states(self) -> list[SteererState]:
        """The state of each position."""
        return [state for state, count in self.members for _ in range(count)]

    def logits(self) -> list[Tensor]:
        """float32 `[positions, V_steering]` of each of the adapter's models."""
        return [
            read(runner, [(state.caches[number], state.window, count) for state, count in self.members])
            for number, runner in enumerate(self.steerer.runners)
        ]


class SteeringPass:
    """Runs the steering models beside the work that `side` has queued, and adds their shifts."""

    def __init__(self, side: SideStream, lap: Lap) -> None:
        self._side = side
        self._lap = lap

    def run(self, spans: Sequence[Span], base: Tensor) -> Tensor:
        """Steered scores from the base's scores, both float32 `[positions, V_base]`, span after span."""
        waves = _waves(spans)
        if not waves:
            return base
        steered = base.clone()
        for wave in waves:
            self._run_wave(wave, base, steered)
        return steered

    def _run_wave(self, wave: Sequence[_Part], base: Tensor, steered: Tensor) -> None:
        groups: dict[tuple[Steerer, Bridge, int], _Group] = {}
        borrowed: list[SteererState] = []
        # All models run before anything waits for one of them, so that a GPU can run them beside the base.
        with self._side.overlapped():
            for part in wave:
                borrowed += _distribute(part, groups)
            logits = [group.logits() for group in groups.values()]
        self._lap("steering")
        for group, own in zip(groups.values(), logits, strict=True):
            self._steer(group, own, base, steered)
        broken = bool(borrowed) and not torch.isfinite(steered.amax())
        for state in borrowed:
            if broken:
                state.invalidate()
            state.release()

    def _steer(self, group: _Group, logits: list[Tensor], base: Tensor, steered: Tensor) -> None:
        """Add one adapter's shift at the positions of its group."""
        states, places = group.states, group.places
        alphas = on_device([state.spec.alpha for state in states], base.device)
        # Most batches have one adapter for all rows, and then no row is copied out and back.
        everyone = places == list(range(base.shape[0]))
        where = on_device(places, base.device)
        before = base if everyone else base.index_select(0, where)
        part = steered if everyone else steered.index_select(0, where)
        shift = group.bridge(group.steerer, states, logits, before, alphas)
        self._lap("steering")
        weighed = group.steerer.adapter.rule.weigh(shift, before, alphas)
        add_shift(part, before, weighed, [state.spec.top_k for state in states])
        if not everyone:
            steered.index_copy_(0, where, part)
        self._lap("fuse_sample")


def _waves(spans: Sequence[Span]) -> list[list[_Part]]:
    """Positions in groups that can run together: one group, unless a history outgrows its model's context.

    Such a history is cut differently at each length, so its positions run one after another, one wave each.
    """
    waves: list[list[_Part]] = []
    place = 0
    for span in spans:
        row, lengths = span.row, span.lengths
        if row.is_steered and lengths:
            together = len(lengths) == 1 or all(
                state.takes_many(row.tokens, lengths[-1]) for state in row.states
            )
            parts = (
                [_Part(row, lengths, place)]
                if together
                else [_Part(row, lengths[i : i + 1], place + i) for i in range(len(lengths))]
            )
            for number, part in enumerate(parts):
                if number == len(waves):
                    waves.append([])
                waves[number].append(part)
        place += len(lengths)
    return waves


def _distribute(part: _Part, groups: dict[tuple[Steerer, Bridge, int], _Group]) -> list[SteererState]:
    """Advance one row's states and put them into their groups. Returns the states that must be released."""
    seen: Counter[tuple[Steerer, Bridge]] = Counter()
    borrowed: list[SteererState] = []
    places = range(part.place, part.place + len(part.lengths))
    for state in part.row.states:
        kind = (state.steerer, bridge_for(state.steerer, state.spec.bridge))
        # A row may have one adapter twice. Each occurrence has a group of its own, as a group has a position once.
        group = groups.setdefault((*kind, seen[kind]), _Group(*kind))
        seen[kind] += 1
        if len(places) > 1 and not state.steerer.shares_vocabulary:
            views = state.views(part.row.tokens, part.lengths)
            borrowed += views
            for view, place in zip(views, places, strict=True):
                group.add(view, range(place, place + 1))
        else:
            state.advance(part.row.tokens, part.lengths[-1])
            group.add(state, places)
    return borrowed

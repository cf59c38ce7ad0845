"""Sorts a step's positions into groups that one adapter steers by one bridge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from steering.bridges.bridge import Bridge
from steering.bridges.table import bridge_for
from steering.session.faults import Faults, row_fault
from steering.session.row import Span, SteeredRow
from steering.steerers.reading import read
from steering.steerers.state import SteererState
from steering.steerers.steerer import Steerer


@dataclass(frozen=True, slots=True)
class Part:
    """Positions of one row that can run together. `places` are their indices among the step's logits."""

    row: SteeredRow
    lengths: range
    places: range


@dataclass(frozen=True, slots=True)
class Member:
    """Positions of one row in a group, and the row's state in the group's adapter.

    A borrowed state is a view, made for these positions only, and must be released.
    """

    row: SteeredRow
    state: SteererState
    places: range
    borrowed: bool = False


@dataclass(slots=True)
class Group:
    """The positions that one adapter steers by one bridge."""

    steerer: Steerer
    bridge: Bridge
    members: list[Member] = field(default_factory=list)

    @property
    def places(self) -> list[int]:
        """The place of each position."""
        return [place for member in self.members for place in member.places]

    @property
    def states(self) -> list[SteererState]:
        """The state of each position."""
        return [member.state for member in self.members for _ in member.places]

    def split(self) -> list[Group]:
        """A group for each member."""
        return [Group(self.steerer, self.bridge, [member]) for member in self.members]

    def logits(self) -> list[Tensor]:
        """Run the adapter's models: float32 `[positions, V_steering]` each."""
        return [
            read(runner, [(m.state.caches[number], m.state.window, len(m.places)) for m in self.members])
            for number, runner in enumerate(self.steerer.runners)
        ]


def waves_of(spans: Sequence[Span], faults: Faults) -> list[list[Part]]:
    """Positions that can run together: one wave, unless a history outgrows its model's context.

    Such a history is cut differently at each length, so its positions run one after another, one wave each.
    """
    waves: list[list[Part]] = []
    place = 0
    for span in spans:
        row, lengths = span.row, span.lengths
        places = range(place, place + len(lengths))
        place = places.stop
        if not row.is_steered or not lengths:
            continue
        with row_fault(row, faults):
            for number, part in enumerate(_parts(row, lengths, places)):
                if number == len(waves):
                    waves.append([])
                waves[number].append(part)
    return waves


def _parts(row: SteeredRow, lengths: range, places: range) -> list[Part]:
    if len(lengths) == 1 or all(state.takes_many(row.tokens, lengths[-1]) for state in row.states):
        return [Part(row, lengths, places)]
    return [Part(row, lengths[i : i + 1], places[i : i + 1]) for i in range(len(lengths))]


def groups_of(wave: Sequence[Part], faults: Faults) -> list[Group]:
    """Advance the rows' states and put them into groups. Rows with a fault are left out."""
    groups: dict[tuple[Steerer, Bridge, int], Group] = {}
    for part in wave:
        if part.row in faults:
            continue
        with row_fault(part.row, faults):
            for key, members in _members(part):
                group = groups.setdefault(key, Group(*key[:2]))
                group.members += members
    return list(groups.values())


def _members(part: Part) -> list[tuple[tuple[Steerer, Bridge, int], list[Member]]]:
    """One row's members, each with the key of its group. Nothing stays borrowed where this raises."""
    seen: Counter[tuple[Steerer, Bridge]] = Counter()
    found: list[tuple[tuple[Steerer, Bridge, int], list[Member]]] = []
    row, places = part.row, part.places
    try:
        for state in row.states:
            kind = (state.steerer, bridge_for(state.steerer, state.spec.bridge))
            # A row may have one adapter twice. Each occurrence has its own group, as a group has a position once.
            key = (*kind, seen[kind])
            seen[kind] += 1
            if len(places) > 1 and not state.steerer.shares_vocabulary:
                views = state.views(row.tokens, part.lengths)
                each = zip(views, places, strict=True)
                members = [Member(row, view, range(i, i + 1), borrowed=True) for view, i in each]
            else:
                state.advance(row.tokens, part.lengths[-1])
                members = [Member(row, state, places)]
            found.append((key, members))
    except BaseException:
        for _, members in found:
            for member in members:
                member.state.invalidate()
            release(members)
        raise
    return found


def release(members: Sequence[Member]) -> None:
    """Release the borrowed states."""
    for member in members:
        if member.borrowed:
            member.state.release()

"""Sides that take turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def take_turns(
    sides: Mapping[Key, Callable[[int], Value]], repeats: int, *, warm_up: int = 1
) -> dict[Key, tuple[Value, ...]]:
    """Run every side once a repeat, in order, and return each side's values.

    A side is called with the number of the repeat, from 0. Before that come `warm_up` rounds with negative numbers,
    whose values are thrown away.
    """
    found: dict[Key, list[Value]] = {key: [] for key in sides}
    for repeat in range(-warm_up, repeats):
        for key, run in sides.items():
            value = run(repeat)
            if repeat >= 0:
                found[key].append(value)
    return {key: tuple(values) for key, values in found.items()}

"""Compares systems on the same tasks: their figures, and the share of the gap to direct tuning that each closes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steering.evaluation.metrics import gap_closed
from steering.evaluation.systems import BASE, TUNED, System
from steering.evaluation.task import Measurement, Task

MakeSystem = Callable[[], System]
Observer = Callable[[str, int], None]
"""Receives a system's label and the number of requests that have just ended."""

NOTE = (
    "Measured on models of the sizes given. Small models show whether the mechanism works, not what a larger one "
    "would score."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One system's figures, named TASK.FIGURE, and for each its share of the gap from base to direct tuning."""

    label: str
    parameters: int
    figures: Mapping[str, float]
    gap_closed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rows of a table, `about` the options that repeat it, and each system's `answers` by set."""

    rows: tuple[Row, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def row(self, label: str) -> Row:
        """The row with this label. Raises KeyError if there is none."""
        for row in self.rows:
            if row.label == label:
                return row
        raise KeyError(label)


def compare(
    systems: Sequence[MakeSystem],
    tasks: Sequence[Task],
    *,
    about: Mapping[str, Any] | None = None,
    observe: Observer | None = None,
) -> Comparison:
    """Measure every system on every task, one after another; the base should come first.

    Each system is made when its turn comes, so that at most one is in memory beside the base.
    """
    found: list[tuple[str, int, dict[str, float]]] = []
    answers: dict[str, Mapping[str, tuple[str, ...]]] = {}
    base: dict[str, Measurement] = {}
    for make in systems:
        system = make()
        figures, said = measure(system, tasks, base, observe)
        if system.label == BASE:
            base = said
        found.append((system.label, system.parameters, figures))
        answers[system.label] = {key: value for each in said.values() for key, value in each.answers.items()}
    ends = {label: figures for label, _, figures in found if label in (BASE, TUNED)}
    rows = tuple(
        Row(label, parameters, figures, _gaps(figures, ends)) for label, parameters, figures in found
    )
    return Comparison(rows, dict(about or {}), answers)


def measure(
    system: System,
    tasks: Sequence[Task],
    base: Mapping[str, Measurement] | None = None,
    observe: Observer | None = None,
) -> tuple[dict[str, float], dict[str, Measurement]]:
    """One system's figures, named TASK.FIGURE, and the measurement of each task by its name.

    `base` holds the measurements of the unsteered base, for the figures that compare with it.
    """
    figures: dict[str, float] = {}
    said: dict[str, Measurement] = {}
    for task in tasks:
        progress = None if observe is None else lambda count: observe(system.label, count)
        said[task.name] = task.measure(system, (base or {}).get(task.name), progress)
        figures |= {f"{task.name}.{name}": value for name, value in said[task.name].figures.items()}
    return figures, said


def _gaps(figures: Mapping[str, float], ends: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    if BASE not in ends or TUNED not in ends:
        return {}
    gaps = {
        name: gap_closed(value, ends[BASE][name], ends[TUNED][name])
        for name, value in figures.items()
        if name in ends[BASE] and name in ends[TUNED]
    }
    return {name: gap for name, gap in gaps.items() if gap is not None}

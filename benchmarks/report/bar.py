"""Figures that are held against bars."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure with one value a repeat, and the least or the largest median that it may have."""

    name: str
    values: tuple[float, ...]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        """The median over the repeats."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median is within the limits. None where there is no limit."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or self.median >= self.at_least
        return above and (self.at_most is None or self.median <= self.at_most)

    def as_dict(self) -> dict[str, Any]:
        """The figure in the JSON line."""
        return {
            "name": self.name,
            "values": [round(value, 4) for value in self.values],
            "median": round(self.median, 4),
            "at_least": self.at_least,
            "at_most": self.at_most,
            "met": self.met,
        }


def spread(values: Sequence[float], digits: int = 2) -> str:
    """A table's cell: the median, and the range where there are several values."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def bar_table(bars: Sequence[Bar]) -> Table:
    """The figures with their limits, one a line."""
    table = Table("figure", "median (range)", "bar", "met")
    for bar in bars:
        limit = f"at least {bar.at_least:g}" if bar.at_least is not None else ""
        if bar.at_most is not None:
            limit = f"at most {bar.at_most:g}"
        verdict = "" if bar.met is None else "yes" if bar.met else "NO"
        table.add_row(bar.name, spread(bar.values), limit, verdict)
    return table

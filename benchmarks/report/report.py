"""A benchmark's report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report.bar import Bar, bar_table
from benchmarks.report.commit import commit
from benchmarks.report.machine import Machine
from benchmarks.workloads.jobs import SEED

_WIDTH = 150


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one run.

    `table` and `notes` are for people. `figures` has every value behind them, for the JSON line. `settings` are options
    of the run that stand in the JSON line beside the seed and the repeats.
    """

    benchmark: str
    table: Table
    bars: Sequence[Bar]
    figures: Any
    repeats: int
    machine: Machine
    notes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def publish(self) -> None:
        """Print the table, the bars, the notes, and then the JSON line."""
        # rich narrows a table to the terminal, and cuts cells. A report is read in files too.
        console = Console(width=_WIDTH)
        console.print(self.table)
        console.print(bar_table(self.bars))
        for note in self.notes:
            print(note)
        sys.stdout.write(json.dumps(self.as_dict()) + "\n")
        sys.stdout.flush()

    def as_dict(self) -> dict[str, Any]:
        """The JSON line."""
        return {
            "benchmark": self.benchmark,
            "commit": commit(),
            "hardware": self.machine.hardware,
            "versions": self.machine.versions,
            "seed": SEED,
            "repeats": self.repeats,
            **self.settings,
            "bars": [bar.as_dict() for bar in self.bars],
            "figures": self.figures,
        }

"""What every benchmark prints at its end: a table for people, and one JSON line with all figures and what made them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from benchmarks.checkout import commit


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that is held against a bar: one value a repeat; met where their median is on the right side of it."""

    name: str
    values: tuple[float, ...]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        """The middle of the repeats."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """None where there is no bar."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or self.median >= self.at_least
        return above and (self.at_most is None or self.median <= self.at_most)

    def as_dict(self) -> dict[str, Any]:
        """For the JSON line."""
        return {
            "name": self.name,
            "values": [round(value, 4) for value in self.values],
            "median": round(self.median, 4),
            "at_least": self.at_least,
            "at_most": self.at_most,
            "met": self.met,
        }


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range, for a table's cell."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def show_bars(bars: Sequence[Bar]) -> None:
    """Print the figures that are held against bars."""
    table = Table("what", "median (range)", "bar", "met")
    for bar in bars:
        limit = f"at least {bar.at_least:g}" if bar.at_least is not None else ""
        if bar.at_most is not None:
            limit = f"at most {bar.at_most:g}"
        verdict = "" if bar.met is None else "yes" if bar.met else "NO"
        table.add_row(bar.name, spread(bar.values), limit, verdict)
    Console(width=130).print(table)


def emit(benchmark: str, bars: Sequence[Bar], figures: Any, *, seed: int, repeats: int, device: str) -> None:
    """Print the JSON line."""
    line = {
        "benchmark": benchmark,
        "commit": commit(),
        "hardware": hardware(device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "seed": seed,
        "repeats": repeats,
        "bars": [bar.as_dict() for bar in bars],
        "figures": figures,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def hardware(device: str) -> dict[str, Any]:
    """What the figures were taken on."""
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "device": device,
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return found

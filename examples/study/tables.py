"""The study's tables: mean and spread over seeds, and the share of an effect that crosses to other vocabularies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from steering.evaluation import BASE, NOTE

Runs = dict[str, list[dict[str, Any]]]
"""The results of a task by base, one for each seed."""

STEERED = ("delta", "delta by map", "proxy")
MOVED = {
    "refuse": ("forgotten.pattern_found", "forgotten.nll"),
    "instruct": ("problems.pattern_found", "problems.nll"),
    "unlearn": ("tofu.forget.probability", "tofu.forget.rouge_l_recall"),
}
"""Figures that each task is meant to change. For these, the share of the gap to direct tuning is meaningful."""
OTHERS = {
    "refuse": ("kept.rouge_l_recall",),
    "instruct": ("problems.exact_match", "kept.rouge_l_recall"),
    "unlearn": ("tofu.forget_quality", "tofu.model_utility", "tofu.retain.rouge_l_recall"),
}
"""Figures that each task is meant to leave alone, and figures for which a share of a gap has no meaning."""


def tables(folder: Path, order: Sequence[str]) -> str:
    """All tables of the results in `folder`, as Markdown. `order`: the bases' names, the template first.

    Raises ValueError where there are no results.
    """
    results = _read(folder, order)
    if not results:
        raise ValueError(f"{folder}: no results yet")
    parts = [NOTE]
    for task, bases in results.items():
        parts.append(f"## {task.capitalize()}")
        parts += [_sizes(bases)]
        parts += [_moved(figure, bases, order[0]) for figure in MOVED[task]]
        parts += [_figure(figure, bases) for figure in OTHERS[task]]
    return "\n\n".join(parts) + "\n"


def _read(folder: Path, order: Sequence[str]) -> dict[str, Runs]:
    """The results by task and base, one for each seed."""
    found: dict[str, Runs] = {}
    for task in MOVED:
        runs = {
            base: [
                json.loads(path.read_text(encoding="utf-8"))
                for path in sorted((folder / task / base).glob("*.json"))
            ]
            for base in order
        }
        if any(runs.values()):
            found[task] = {base: results for base, results in runs.items() if results}
    return found


def _sizes(bases: Runs) -> str:
    """The parameters of every system, and the number of seeds."""
    lines = [_line("parameters", bases), _line("---", ["---"] * len(bases))]
    for label in _labels(bases):
        sizes = (
            [row["parameters"] for row in runs[0]["rows"] if row["label"] == label] for runs in bases.values()
        )
        lines.append(_line(label, (f"{found[0]:,}" if found else "" for found in sizes)))
    seeds = ", ".join(f"{name}: {len(runs)}" for name, runs in bases.items())
    return "\n".join(lines) + f"\n\nSeeds: {seeds}. A figure without ± is from one seed."


def _figure(figure: str, bases: Runs) -> str:
    """A table of one figure for all systems."""
    lines = [_line(figure, bases), _line("---", ["---"] * len(bases))]
    for label in _labels(bases):
        found = (_values(runs, label, "figures", figure) for runs in bases.values())
        lines.append(_line(label, map(_spread, found)))
    return "\n".join(lines)


def _moved(figure: str, bases: Runs, template: str) -> str:
    """A table of one figure with the share of the gap that each system closes, and the share that crosses over."""
    lines = [_line(f"{figure} (gap closed)", bases), _line("---", ["---"] * len(bases))]
    crossed = []
    for label in _labels(bases):
        cells, shares = [], []
        for runs in bases.values():
            value = _spread(_values(runs, label, "figures", figure))
            gaps = _values(runs, label, "gap_closed", figure)
            cells.append(f"{value} ({fmean(gaps):.0%})" if gaps and label != BASE else value)
            # Only the same seeds are compared, because a study may be half done.
            seeds = {run["about"]["seed"] for run in runs}
            same = [run for run in bases.get(template, []) if run["about"]["seed"] in seeds]
            own = _values(same, label, "gap_closed", figure)
            shares.append(f"{fmean(gaps) / fmean(own):.0%}" if gaps and own and fmean(own) else "")
        lines.append(_line(label, cells))
        if label in STEERED:
            crossed.append(_line(f"{label}, of its effect on {template}", shares))
    return "\n".join(lines + crossed)


def _line(first: str, cells: Iterable[str]) -> str:
    return "| " + " | ".join([first, *cells]) + " |"


def _labels(bases: Runs) -> list[str]:
    return list(dict.fromkeys(row["label"] for runs in bases.values() for run in runs for row in run["rows"]))


def _values(runs: list[dict[str, Any]], label: str, part: str, figure: str) -> list[float]:
    found = (row[part].get(figure) for run in runs for row in run["rows"] if row["label"] == label)
    return [value for value in found if value is not None]


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"

"""Reports of a comparison: a table, JSON and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from steering.evaluation.comparison import NOTE, Comparison, Row
from steering.evaluation.figure import new_figure
from steering.evaluation.systems import BASE, STEERED, TUNED

_INK, _PALE = "#2b2f36", "#c9ced6"
_COLOURS = {BASE: "#8a95a5", STEERED: "#1f6f8b", TUNED: "#3d8b5f"}
_PANELS, _COLUMNS = 12, 3


def as_table(comparison: Comparison, title: str = "") -> Table:
    """A table with a row for each figure, by task, and a column for each system.

    Below a figure stands the share of the gap to direct tuning that each system closes.
    """
    table = Table(
        title=title or None,
        caption=NOTE,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
    )
    names = figure_names(comparison.rows)
    table.add_column("", no_wrap=True)
    for row in comparison.rows:
        table.add_column(f"{row.label}\n{_size(row.parameters)}", justify="right")
    task = ""
    for name in names:
        section, _, figure = name.partition(".")
        if section != task:
            task = section
            table.add_row(task, style="bold")
        table.add_row(f" {figure}", *(_cell(row, name) for row in comparison.rows))
        gaps = [
            "" if row.label in (BASE, TUNED) else _share(row.gap_closed.get(name)) for row in comparison.rows
        ]
        if any(gaps):
            table.add_row("  gap closed", *gaps, style="dim")
    return table


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as values that JSON has; NaN and infinities become null."""
    return {
        "about": dict(comparison.about),
        "note": NOTE,
        "rows": [
            {
                "label": row.label,
                "parameters": row.parameters,
                "figures": {name: _finite(value) for name, value in row.figures.items()},
                "gap_closed": {name: _finite(value) for name, value in row.gap_closed.items()},
            }
            for row in comparison.rows
        ],
        "answers": {
            label: {key: list(value) for key, value in sets.items()}
            for label, sets in comparison.answers.items()
        },
    }


def figure_names(rows: Sequence[Row]) -> list[str]:
    """The names of all figures of any row, by task, in order of first appearance."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    tasks = list(dict.fromkeys(_task(name) for name in names))
    return sorted(names, key=lambda name: tasks.index(_task(name)))


def _task(name: str) -> str:
    return name.partition(".")[0]


def write_picture(comparison: Comparison, path: Path, *, title: str) -> None:
    """Draw a panel for each of the first twelve figures, with a bar for each system, into a PNG file.

    Raises `PlotsUnavailableError` if matplotlib is missing and OSError if the file cannot be written.
    """
    names = figure_names(comparison.rows)[:_PANELS]
    depth = -(-len(names) // _COLUMNS)
    height = depth * (1.0 + 0.28 * len(comparison.rows)) + 0.8
    figure = new_figure(12.0, height)
    figure.suptitle(title, color=_INK, parse_math=False)
    panels = figure.subplots(depth, _COLUMNS, squeeze=False).flatten()
    for axes, name in zip(panels, names, strict=False):
        _draw(axes, comparison.rows, name)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel(NOTE, fontsize=7, color=_INK, x=0.005, ha="left")
    figure.savefig(path, format="png")


def _draw(axes: Any, rows: Sequence[Row], name: str) -> None:
    values = [row.figures.get(name, math.nan) for row in rows]
    axes.barh(
        range(len(rows)),
        [value if math.isfinite(value) else 0.0 for value in values],
        color=[_COLOURS.get(row.label, _PALE) for row in rows],
        height=0.7,
    )
    for place, value in enumerate(values):
        if rows[place].figures.get(name) is None:
            continue
        axes.annotate(
            _number(value),
            (max(value, 0.0) if math.isfinite(value) else 0.0, place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=_INK,
        )
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_title(name, loc="left", fontsize=9, color=_INK)
    axes.xaxis.set_visible(False)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, colors=_INK)


def _cell(row: Row, name: str) -> str:
    return _number(row.figures[name]) if name in row.figures else ""


def _share(gap: float | None) -> str:
    return "" if gap is None else f"{gap:.0%}"


def _size(parameters: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.1f}{name}"
    return str(parameters)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "none" if math.isnan(value) else "inf"
    return f"{value:.3f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.2e}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

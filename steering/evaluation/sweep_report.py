"""A sweep as tables, as JSON, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from steering.evaluation.comparison import NOTE
from steering.evaluation.figure import new_figure
from steering.evaluation.sweep import Criterion, SweepResult, SweepRun

_INK, _LINE, _START = "#2b2f36", "#1f6f8b", "#8a95a5"
_COLUMNS = 4


def run_line(run: SweepRun, criterion: Criterion) -> str:
    """One run in a line: its split, its label and the criterion."""
    return f"{run.split}: {run.label}: {criterion.value(run.figures):.4f}"


def sweep_tables(result: SweepResult, criterion: Criterion) -> list[Table]:
    """Three tables: every run on the development split, the chosen setting, and the final figures on the test split."""
    development = Table(title=f"Development split: {criterion.text}", title_justify="left")
    development.add_column("setting")
    development.add_column("criterion", justify="right")
    for _, name in criterion.terms:
        development.add_column(name, justify="right")
    for run in result.runs:
        shown = [f"{run.figures[name]:.4f}" for _, name in criterion.terms]
        style = "bold" if run.setting == result.chosen else None
        development.add_row(run.label, f"{criterion.value(run.figures):.4f}", *shown, style=style)
    final = Table(title="Test split", caption=NOTE, title_justify="left", caption_justify="left")
    final.add_column("figure")
    for run in result.final:
        final.add_column(run.label, justify="right")
    for name in result.final[0].figures:
        final.add_row(
            name, *(f"{run.figures[name]:.4f}" if name in run.figures else "" for run in result.final)
        )
    chosen = Table(title="Chosen", title_justify="left", show_header=False)
    for name, value in asdict(result.chosen).items():
        chosen.add_row(name, str(value))
    return [development, chosen, final]


def sweep_json(result: SweepResult, criterion: Criterion, about: Mapping[str, Any]) -> dict[str, Any]:
    """The whole result as values that JSON has."""
    return {
        "about": dict(about),
        "note": NOTE,
        "criterion": criterion.text,
        "chosen": asdict(result.chosen),
        "development": [_plain(run, criterion) for run in result.runs],
        "test": [_plain(run, criterion) for run in result.final],
    }


def _plain(run: SweepRun, criterion: Criterion) -> dict[str, Any]:
    return {
        "varied": run.varied,
        "label": run.label,
        "setting": asdict(run.setting),
        "criterion": criterion.value(run.figures),
        "figures": dict(run.figures),
    }


def write_sweep_picture(result: SweepResult, criterion: Criterion, path: Path) -> None:
    """Draw a panel for each hyperparameter into a PNG file: the criterion on the development split by its values.

    A dotted line marks the start of the sweep.

    Raises `PlotsUnavailableError` if matplotlib is missing and OSError if the file cannot be written.
    """
    names = list(dict.fromkeys(run.varied for run in result.runs if run.varied))
    depth = max(1, -(-len(names) // _COLUMNS))
    figure = new_figure(12.0, 0.6 + 2.4 * depth)
    figure.suptitle(criterion.text, color=_INK, parse_math=False)
    panels = figure.subplots(depth, _COLUMNS, squeeze=False, sharey=True).flatten()
    for axes, name in zip(panels, names, strict=False):
        runs = [run for run in result.runs if run.varied == name]
        axes.plot(range(len(runs)), [criterion.value(run.figures) for run in runs], color=_LINE, marker="o")
        axes.axhline(criterion.value(result.runs[0].figures), color=_START, linestyle=":")
        axes.set_xticks(range(len(runs)), [str(getattr(run.setting, name)) for run in runs], fontsize=7)
        axes.set_title(name, loc="left", fontsize=9, color=_INK)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.savefig(path, format="png")

"""A sweep as tables, as JSON, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from mapping_cache import PlotsUnavailableError
from steering.evaluation.comparison import NOTE
from steering.evaluation.sweep import Criterion, SweepResult, Trial

_INK, _LINE, _START = "#2b2f36", "#1f6f8b", "#8a95a5"
_COLUMNS, _DPI = 4, 130


def trial_line(trial: Trial, criterion: Criterion) -> str:
    """One trial in a line."""
    return f"{trial.split}: {trial.label}: {criterion.value(trial.figures):.4f}"


def sweep_tables(result: SweepResult, criterion: Criterion) -> list[Table]:
    """Every setting on the development split, and the final figures on the test split."""
    turned = Table(title=f"Development split: {criterion.text}", title_justify="left")
    turned.add_column("turned")
    turned.add_column("criterion", justify="right")
    for _, name in criterion.terms:
        turned.add_column(name, justify="right")
    for trial in result.trials:
        shown = [f"{trial.figures[name]:.4f}" for _, name in criterion.terms]
        style = "bold" if trial.setting == result.chosen else None
        turned.add_row(trial.label, f"{criterion.value(trial.figures):.4f}", *shown, style=style)
    final = Table(title="Test split", caption=NOTE, title_justify="left", caption_justify="left")
    final.add_column("figure")
    for trial in result.final:
        final.add_column(trial.label, justify="right")
    for name in result.final[0].figures:
        final.add_row(
            name, *(f"{trial.figures[name]:.4f}" if name in trial.figures else "" for trial in result.final)
        )
    chosen = Table(title="Chosen", title_justify="left", show_header=False)
    for name, value in asdict(result.chosen).items():
        chosen.add_row(name, str(value))
    return [turned, chosen, final]


def sweep_json(result: SweepResult, criterion: Criterion, about: Mapping[str, Any]) -> dict[str, Any]:
    """All of it in plain values."""
    return {
        "about": dict(about),
        "note": NOTE,
        "criterion": criterion.text,
        "chosen": asdict(result.chosen),
        "development": [_plain(trial, criterion) for trial in result.trials],
        "test": [_plain(trial, criterion) for trial in result.final],
    }


def _plain(trial: Trial, criterion: Criterion) -> dict[str, Any]:
    return {
        "turned": trial.dial,
        "label": trial.label,
        "setting": asdict(trial.setting),
        "criterion": criterion.value(trial.figures),
        "figures": dict(trial.figures),
    }


def write_sweep_picture(result: SweepResult, criterion: Criterion, path: Path) -> None:
    """A panel for each dial: the criterion on the development split, dotted where the sweep started.

    Raises `PlotsUnavailableError` where matplotlib is missing and OSError where the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsUnavailableError("a picture needs matplotlib: pip install 'trimtab[plots]'") from error
    dials = list(dict.fromkeys(trial.dial for trial in result.trials if trial.dial))
    depth = max(1, -(-len(dials) // _COLUMNS))
    figure = Figure(figsize=(12.0, 0.6 + 2.4 * depth), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(criterion.text, color=_INK, parse_math=False)
    panels = figure.subplots(depth, _COLUMNS, squeeze=False, sharey=True).flatten()
    for axes, dial in zip(panels, dials, strict=False):
        trials = [trial for trial in result.trials if trial.dial == dial]
        values = [criterion.value(trial.figures) for trial in trials]
        axes.plot(range(len(trials)), values, color=_LINE, marker="o")
        axes.axhline(criterion.value(result.trials[0].figures), color=_START, linestyle=":")
        axes.set_xticks(
            range(len(trials)), [str(getattr(trial.setting, dial)) for trial in trials], fontsize=7
        )
        axes.set_title(dial, loc="left", fontsize=9, color=_INK)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for axes in panels[len(dials) :]:
        axes.set_visible(False)
    figure.savefig(path, format="png")

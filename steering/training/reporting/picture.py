"""The loss curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mapping_cache import PlotsUnavailableError
from steering.training.recipe import TrainingReport

_INK, _PALE = "#2b2f36", "#c9ced6"
_COLOURS = {"learn": "#1f6f8b", "keep": "#3d8b5f", "forget": "#b5533c", "imitate": "#8a5a9e"}
_INCHES = (8.0, 4.2)
_DPI = 120


def draw_losses(report: TrainingReport, path: Path, *, title: str) -> None:
    """Draw each step's loss, the objectives' smoothed means and the learning rate into a PNG file.

    The loss on held-out examples is drawn over them, with a ring around the step whose weights are kept.

    Raises `PlotsUnavailableError` if matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsUnavailableError("a picture needs matplotlib: pip install 'trimtab[plots]'") from error
    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, loc="left", color=_INK, parse_math=False)
    records = report.records
    steps = range(1, len(records) + 1)
    axes.plot(steps, [record.loss for record in records], color=_PALE, linewidth=1, label="loss, each step")
    for name, colour in _COLOURS.items():
        found = [
            (step, record.terms[name])
            for step, record in zip(steps, records, strict=True)
            if name in record.terms
        ]
        if found:
            axes.plot(
                [step for step, _ in found], _smooth([value for _, value in found]), color=colour, label=name
            )
    if report.kept:
        measured = report.held_out
        axes.plot(
            [each.step for each in measured],
            [each.loss for each in measured],
            color=_INK,
            marker="o",
            markersize=3,
            label="held out",
        )
        axes.plot(
            report.kept.step, report.kept.loss, "o", color=_INK, markersize=9, fillstyle="none", label="kept"
        )
    axes.set_xlabel("optimiser step", color=_INK)
    axes.set_ylabel("nats a token", color=_INK)
    rates = axes.twinx()
    rates.plot(steps, [record.learning_rate for record in records], color=_INK, linewidth=0.8, linestyle=":")
    rates.set_ylabel("learning rate (dotted)", color=_INK)
    for each in (axes, rates):
        each.spines["top"].set_visible(False)
        each.tick_params(length=0, colors=_INK)
    axes.legend(frameon=False, labelcolor=_INK)
    figure.savefig(path, format="png", metadata={"Software": None})


def _smooth(values: Sequence[float]) -> list[float]:
    """The running mean over the last fiftieth of the run."""
    window = max(1, len(values) // 50)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [
        (sums[end] - sums[max(0, end - window)]) / (end - max(0, end - window))
        for end in range(1, len(values) + 1)
    ]

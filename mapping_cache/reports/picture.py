"""A report as a picture: the base's tokens by kind of match, and by similarity to their nearest match."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mapping_cache.reports.map_report import KIND_ORDER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEERED, _WEAK, _BAR, _INK = "#1f6f8b", "#c9ced6", "#8a95a5", "#2b2f36"
_INCHES = (10.0, 4.4)
_DPI = 150


class PlotsUnavailableError(RuntimeError):
    """matplotlib is not installed. The message names the extra that installs it."""


def write_picture(
    report: dict[str, Any],
    path: str | os.PathLike[str],
    *,
    base: str = "the base",
    steering: str = "the steering model",
) -> None:
    """Draws a report of `map_report` into a PNG file; `base` and `steering` are the names in its title.

    Raises `PlotsUnavailableError` if matplotlib is missing and `OSError` if the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsUnavailableError("a picture needs matplotlib: pip install 'trimtab[plots]'") from error
    # pyplot keeps global state, which the threads of a server would share; so it is not used.
    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    # A name is a path or a model id: a dollar sign in it must not start a formula.
    figure.suptitle(
        f"From {base} to {steering}: {report['text']['exact']:.0%} of a sample text's tokens are in both",
        parse_math=False,
        color=_INK,
        fontsize=12,
    )
    counts, histogram = figure.subplots(1, 2)
    _draw_counts(counts, report)
    _draw_histogram(histogram, report)
    figure.savefig(path, format="png")


def _draw_counts(axes: Axes, report: dict[str, Any]) -> None:
    kinds = [kind for kind in KIND_ORDER if report["nearest_counts"][kind]]
    nearest = [report["nearest_counts"][kind] for kind in kinds]
    steered = [0 if kind == "unmatched" else report["counts"][kind] for kind in kinds]
    weak = [total - part for total, part in zip(nearest, steered, strict=True)]
    rows = range(len(kinds))
    axes.barh(rows, steered, color=_STEERED, label="steered", height=0.7)
    axes.barh(rows, weak, left=steered, color=_WEAK, label="not steered", height=0.7)
    for row, total in zip(rows, nearest, strict=True):
        axes.annotate(f"{total:,}", (total, row), (4, 0), textcoords="offset points", va="center", color=_INK)
    axes.set_yticks(rows, ["none" if kind == "unmatched" else kind for kind in kinds])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max(nearest, default=1))
    _tidy(axes, "The base's tokens by kind of match")
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.legend(frameon=False, loc="lower right", labelcolor=_INK)


def _draw_histogram(axes: Axes, report: dict[str, Any]) -> None:
    entries = report["similarity"]
    # The last entry is similarity 1 alone; it gets a bar of its own to the right of the scale.
    lefts = [entry["from"] for entry in entries]
    heights = [entry["tokens"] for entry in entries]
    width = lefts[1] - lefts[0]
    axes.bar([left + width / 2 for left in lefts], heights, width=0.9 * width, color=_BAR)
    axes.set_xticks(
        [*lefts[:-1:2], lefts[-1] + width / 2], [*(f"{left:.1f}" for left in lefts[:-1:2]), "the\nsame"]
    )
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("similarity", color=_INK)
    _tidy(axes, "The base's tokens by similarity to the nearest match")


def _tidy(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=_INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, colors=_INK)

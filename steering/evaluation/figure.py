"""An empty figure to draw a report into."""

from __future__ import annotations

from typing import Any

from mapping_cache import PlotsUnavailableError

_DPI = 130


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of this size in inches. Raises `PlotsUnavailableError` if matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsUnavailableError("a picture needs matplotlib: pip install 'trimtab[plots]'") from error
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure

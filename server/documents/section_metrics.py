"""The section on metrics, from the registry."""

from __future__ import annotations

from collections.abc import Iterator

from server.documents.markdown import table
from server.telemetry.metrics import Metrics


def metrics_section() -> Iterator[str]:
    """The lines of the section."""
    yield "## Metrics\n"
    yield "`GET /metrics`, for Prometheus. The label `adapter` is a loaded adapter's name, `none` for unsteered"
    yield "requests, or `several`. A histogram has `_bucket`, `_sum` and `_count`.\n"
    yield from table(
        ("metric", "kind", "labels", "meaning"),
        (
            (
                f"`{metric.name}_total`" if metric.kind == "counter" else f"`{metric.name}`",
                metric.kind,
                ", ".join(f"`{label}`" for label in metric.labels),
                metric.text,
            )
            for metric in Metrics({}).described()
        ),
    )

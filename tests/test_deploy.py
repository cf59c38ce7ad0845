"""The dashboard, the alerts, the configurations and the documents name only metrics and settings that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.config import Config
from server.telemetry.metrics import Metrics

REPOSITORY = Path(__file__).resolve().parents[1]
DEPLOY = REPOSITORY / "deploy"
_METRIC = re.compile(r"\btrimtab_[a-z0-9_]+")


@pytest.fixture(scope="module")
def series() -> dict[str, set[str]]:
    """The labels of every series that `/metrics` can have."""
    found: dict[str, set[str]] = {}
    for metric in Metrics({}).described():
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
        for ending in endings[metric.kind]:
            found[metric.name + ending] = {*metric.labels, *({"le"} if ending == "_bucket" else ())}
    return found


def expressions() -> Iterator[tuple[str, str]]:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    text = re.sub(r"(?m)^( +and on .*|.* > 0)\n +", r"\1 ", (DEPLOY / "alerts.yml").read_text())
    for line in text.splitlines():
        if "trimtab_" in line:
            yield "alerts.yml", line


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[title for title, _ in EXPRESSIONS])
def test_every_metric_and_label_exists(series: dict[str, set[str]], where: str, expression: str) -> None:
    names = _METRIC.findall(expression)
    assert names or "up{" in expression
    assert set(names) <= set(series)
    # Prometheus adds the instance, and a fleet of replicas the replica.
    labels = {"instance", "replica", *(label for name in names for label in series[name])}
    for selector in re.findall(r"\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= labels, selector
    for grouping in re.findall(r"(?:by|on) \(([^)]*)\)", expression):
        assert {label.strip() for label in grouping.split(",")} <= labels, grouping


def test_every_metric_is_on_the_dashboard(series: dict[str, set[str]]) -> None:
    shown = {name for _, expression in EXPRESSIONS for name in _METRIC.findall(expression)}
    metrics = {name.removesuffix("_bucket") for name in series if not name.endswith(("_sum", "_count"))}
    missing = {name for name in metrics if not any(one.startswith(name) for one in shown)}
    assert missing == set()


def test_the_dashboard_is_whole_and_its_panels_do_not_overlap(series: dict[str, set[str]]) -> None:
    dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24
    assert all(panel.get("description") for panel in panels if panel["type"] != "row")
    for variable in dashboard["templating"]["list"]:
        assert set(_METRIC.findall(json.dumps(variable))) <= set(series)


@pytest.mark.parametrize("page", ["operations.md", "api.md"])
def test_the_documents_name_settings_and_metrics_that_exist(series: dict[str, set[str]], page: str) -> None:
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    metrics = set(_METRIC.findall(text)) - {"trimtab_proxy"}  # a file of the nginx configuration
    known = {*series, *(name.removesuffix("_bucket") for name in series)}
    assert metrics <= known, metrics - known
    variables = {name.lower() for name in re.findall(r"TRIMTAB_([A-Z_]+)", text)}
    assert variables <= {*Config.model_fields, "cache", "config"}


def test_the_operators_page_names_every_setting() -> None:
    text = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    missing = [name for name in Config.model_fields if f"--{name.replace('_', '-')}" not in text]
    assert missing == []


@pytest.mark.parametrize("file", ["nginx.conf", "trimtab_proxy.conf", "prometheus.yml"])
def test_the_flags_that_configurations_speak_of_exist(file: str) -> None:
    flags = re.findall(r"`--([a-z-]+)`", (DEPLOY / file).read_text())
    assert {flag.replace("-", "_") for flag in flags} <= set(Config.model_fields)

"""What of the fleet needs no Ray: merged metrics, and how many replicas a load calls for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from server.config import load_config
from server.fleet.metrics_text import merge
from server.fleet.scaling import PendingPolicy, wanted_replicas
from server.telemetry.metrics import Metrics


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_merged_metrics_are_those_of_each_replica_with_its_name() -> None:
    texts = {}
    for number, replica in enumerate(("a", "b", "c"), 1):
        metrics = Metrics({})
        metrics.count_error(400 + number)
        metrics.finished("base", "forget", "stop", 0.5 * number)
        texts[replica] = metrics.render()
    merged = merge(texts)
    expected = {
        (name, labels | {("replica", replica)}): value
        for replica, text in texts.items()
        for (name, labels), value in samples(text).items()
    }
    assert samples(merged) == expected
    heads = [line for line in merged.decode().splitlines() if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))
    assert merge({"a": b"# HELP up h\n# TYPE up gauge\nup 1.0\n"}).decode().endswith('up{replica="a"} 1.0\n')


@given(st.lists(st.integers(0, 500), max_size=8), st.integers(1, 64))
def test_enough_replicas_and_not_one_too_many(pending: list[int], width: int) -> None:
    wanted = wanted_replicas(pending, width)
    assert wanted >= 1
    assert sum(pending) <= wanted * 0.75 * width + 1e-6
    assert wanted == 1 or sum(pending) > (wanted - 1) * 0.75 * width - 1e-6


def test_the_policy_reads_what_the_replicas_report() -> None:
    policy = PendingPolicy(max_num_seqs=4)
    assert policy(SimpleNamespace(aggregated_metrics={"pending": {"a": 4.0, "b": 3.0}})) == (3, {})
    assert policy(SimpleNamespace(aggregated_metrics=None)) == (1, {})


def test_the_most_replicas_cannot_be_fewer_than_the_least() -> None:
    assert load_config(replicas=2, max_replicas=2).max_replicas == 2
    with pytest.raises(ValidationError, match="less than `replicas`"):
        load_config(replicas=3, max_replicas=2)

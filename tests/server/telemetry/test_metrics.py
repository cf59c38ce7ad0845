"""The values of the metrics after known requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from steering.engine.step_report import PHASES
from tests.server.fakes import FakeAdapter, FakeEngine
from tests.server_process import tiny_folders
from tests.server_thread import ServerThread, serve_in_thread, wait_for

MakeClient = Callable[..., TestClient]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(client: Any) -> Samples:
    """The value of each sample by its name, without `trimtab_`, and its labels."""
    return {
        (sample.name.removeprefix("trimtab_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset({"model": "base", **labels}.items())]


def test_the_gauges_count_running_and_waiting_sequences(make_client: MakeClient, engine: FakeEngine) -> None:
    client = make_client()
    engine.endless = True
    engine.max_model_len = 2 * 10**9
    body = {"prompt": "hi", "max_tokens": 400}
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(client.post, "/v1/completions", json={**body, "model": "base:forget", "n": 2})
        wait_for(lambda: value(read(client), "num_requests_running", adapter="forget") == 2)
        engine.go.clear()
        second = pool.submit(client.post, "/v1/completions", json={**body, "model": "base", "n": 3})
        wait_for(lambda: value(read(client), "num_requests_waiting", adapter="none") == 3)
        busy = read(client)
        assert value(busy, "num_requests_running", adapter="none") == 0
        assert value(busy, "num_requests_waiting", adapter="forget") == 0
        assert value(busy, "kv_cache_usage_ratio") == pytest.approx(0.2)
        engine.go.set()
        assert (first.result(30).status_code, second.result(30).status_code) == (200, 200)
    idle = read(client)
    for name in ("num_requests_running", "num_requests_waiting"):
        assert {amount for (sample, _), amount in idle.items() if sample == name} == {0}
    assert value(idle, "request_queue_time_seconds_count", adapter="forget") == 2
    assert value(idle, "request_queue_time_seconds_count", adapter="none") == 3
    assert value(idle, "generation_tokens_total", adapter="forget") == 800
    # A prompt counts once, however many sequences share it.
    assert value(idle, "prompt_tokens_total", adapter="none") == 2


def test_times_begin_with_the_arrival_not_the_admission(
    client: TestClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go = threading.Event(), threading.Event()

    def encode(text: str, **options: Any) -> list[int]:
        reached.set()
        go.wait(20)
        return list(text.encode())

    monkeypatch.setattr(engine.base.tokenizer, "encode", encode)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.post, "/v1/completions", json={"model": "base", "prompt": "hi"})
        assert reached.wait(20)
        # The tokenizer takes a quarter of a second.
        threading.Event().wait(0.25)
        go.set()
        assert reply.result(20).status_code == 200
    samples = read(client)
    for name in (
        "request_queue_time_seconds",
        "time_to_first_token_seconds",
        "e2e_request_latency_seconds",
    ):
        assert value(samples, f"{name}_sum", adapter="none") >= 0.25


def test_requests_with_several_adapters_share_one_label(client: TestClient, engine: FakeEngine) -> None:
    engine.session.install(FakeAdapter("polite"))
    body = {"model": "base", "prompt": "hi", "steering": ["polite", "forget"]}
    assert client.post("/v1/completions", json=body).status_code == 200
    assert value(read(client), "generation_tokens_total", adapter="several") == 12


def test_the_series_of_an_adapter_end_when_it_is_unloaded(client: TestClient, engine: FakeEngine) -> None:
    for number in range(3):
        name = f"passing-{number}"
        engine.session.install(FakeAdapter(name))
        client.post("/v1/completions", json={"model": f"base:{name}", "prompt": "hi"})
        engine.session.detach(name)
    once_more = client.get("/metrics").text
    assert "passing-2" in once_more
    assert "passing" not in client.get("/metrics").text


def test_a_client_cannot_make_labels(client: TestClient) -> None:
    client.post("/v1/completions", json={"model": "base:invented", "prompt": "hi"})
    client.post("/v1/completions", json={"model": "base", "prompt": "hi", "steering": "invented"})
    client.get("/invented")
    assert "invented" not in client.get("/metrics").text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    folders: dict[str, Path] = tiny_folders(tmp_path_factory.mktemp("tiny"))
    with serve_in_thread(
        model={"base": str(folders["pieces"])},
        adapter={"tab": str(folders["steer"])},
        device="cpu",
        max_num_seqs=2,
    ) as server:
        yield server


def test_a_real_engine_reports_the_time_of_each_phase(server: ServerThread) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        before = read(client)
        body = {"model": "base:tab", "prompt": "The ferry left the harbour " * 4, "n": 4, "max_tokens": 20}
        reply = client.post("/v1/completions", json={**body, "ignore_eos": True})
        assert reply.status_code == 200
        after = read(client)
    seconds = {phase: value(after, "step_seconds_sum", phase=phase) for phase in PHASES}
    assert all(spent > 0 for spent in seconds.values())
    counts = {value(after, "step_seconds_count", phase=phase) for phase in PHASES}
    # Two sequences at a time take twenty steps each; the prefill step yields the first token.
    assert len(counts) == 1
    assert 40 <= counts.pop() <= 44
    elapsed = value(after, "e2e_request_latency_seconds_sum", adapter="tab")
    assert sum(seconds.values()) <= elapsed
    assert value(after, "request_queue_time_seconds_count", adapter="tab") == 4
    # The second two waited while the first two ran.
    assert value(after, "request_queue_time_seconds_sum", adapter="tab") > 0.25 * sum(seconds.values())
    assert value(after, "request_success_total", adapter="tab", finish_reason="length") == 4
    assert value(after, "generation_tokens_total", adapter="tab") == 80
    assert value(after, "inter_token_latency_seconds_count", adapter="tab") == 76
    assert value(after, "time_to_first_token_seconds_count", adapter="tab") == 4
    # It is measured at every eighth token.
    assert value(after, "steering_kl_divergence_count", adapter="tab") == 4 * 3
    assert value(after, "steering_kl_divergence_sum", adapter="tab") > 0
    assert 0 < value(after, "steering_changed_tokens_total", adapter="tab") <= 80
    assert value(after, "history_reencoded_tokens_total") >= value(before, "history_reencoded_tokens_total")
    queries, hits = (value(after, f"prefix_cache_{name}_total") for name in ("queries", "hits"))
    assert 0 < hits <= queries
    assert value(after, "kv_cache_usage_ratio") == 0


# The metrics that operators may rely on, by the names that Prometheus shows.
NAMES = """num_requests_running num_requests_waiting kv_cache_usage_ratio prompt_tokens_total generation_tokens_total
request_success_total request_errors_total prefix_cache_queries_total prefix_cache_hits_total preemptions_total
engine_restarts_total
time_to_first_token_seconds_bucket inter_token_latency_seconds_bucket e2e_request_latency_seconds_bucket
request_queue_time_seconds_bucket step_seconds_bucket steering_kl_divergence_bucket steering_changed_tokens_total
history_reencoded_tokens_total""".split()


def test_no_metric_is_missing(client: TestClient) -> None:
    client.post("/v1/completions", json={"model": "base:forget", "prompt": "hi"})
    client.get("/nowhere")
    assert {name for name, _ in read(client)} >= set(NAMES)

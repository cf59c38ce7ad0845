"""What routers of vLLM servers read, under `--metrics-compat vllm`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.server.fakes import FakeEngine
from tests.server_thread import wait_for

MakeClient = Callable[..., TestClient]
GAUGES = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
    "vllm:lora_requests_info",
}


def gauges(client: TestClient) -> dict[str, tuple[float, dict[str, str]]]:
    """The value and the labels of each of vLLM's gauges."""
    return {
        sample.name: (sample.value, sample.labels)
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name.startswith("vllm:")
    }


def test_without_the_setting_there_are_none(client: TestClient) -> None:
    assert gauges(client) == {}


def test_the_gauges_have_vllms_names_labels_and_meaning(make_client: MakeClient, engine: FakeEngine) -> None:
    client = make_client(metrics_compat="vllm")
    idle = gauges(client)
    assert set(idle) == GAUGES
    model = {"model_name": "base", "engine": "0"}
    assert idle["vllm:cache_config_info"] == (1.0, {**model, "block_size": "16", "num_gpu_blocks": "10"})
    adapters = {"max_lora": "1", "running_lora_adapters": "", "waiting_lora_adapters": ""}
    assert idle["vllm:lora_requests_info"][1] == adapters
    engine.endless = True
    engine.max_model_len = 2 * 10**9
    body = {"prompt": "hi", "max_tokens": 400}
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(client.post, "/v1/completions", json={**body, "model": "base:forget", "n": 2})
        wait_for(lambda: gauges(client)["vllm:num_requests_running"] == (2.0, model))
        engine.go.clear()
        second = pool.submit(client.post, "/v1/completions", json={**body, "model": "base", "n": 3})
        wait_for(lambda: gauges(client)["vllm:num_requests_waiting"] == (3.0, model))
        busy = gauges(client)
        engine.go.set()
        assert [first.result().status_code, second.result().status_code] == [200, 200]
    assert busy["vllm:num_requests_running"] == (2.0, model)
    assert busy["vllm:lora_requests_info"][1]["running_lora_adapters"] == "base:forget"
    assert busy["vllm:lora_requests_info"][0] >= idle["vllm:lora_requests_info"][0]
    assert 0 < busy["vllm:kv_cache_usage_perc"][0] <= 1

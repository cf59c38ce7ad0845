"""Models, adapters, maps, tokens, health, metrics and keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from mapping_cache import VocabularyMap
from server.errors import ApiError
from tests.server.fakes import FakeEngine, FakeSession

MakeClient = Callable[..., TestClient]


def test_models_lists_bases_and_pairs(client: TestClient) -> None:
    base, pair = client.get("/v1/models").json()["data"]
    assert (base["id"], base["root"], base["parent"], base["steering"]) == ("base", "base", None, None)
    assert (pair["id"], pair["root"], pair["parent"]) == ("base:forget", "base", "base")
    assert pair["steering"]["kind"] == "delta"
    assert pair["steering"]["map"]["matched_share"] == 1.0
    assert client.get("/v1/models/base:forget").json() == pair
    missing = client.get("/v1/models/nobody")
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "model")


def test_adapters_are_listed(client: TestClient) -> None:
    (adapter,) = client.get("/v1/adapters").json()["data"]
    assert (adapter["name"], adapter["version"], adapter["bases"]) == ("forget", "v1", ["base"])


def test_maps_are_reported(client: TestClient) -> None:
    (card,) = client.get("/v1/maps").json()["data"]
    assert "report" not in card
    full = client.get("/v1/maps/base/forget").json()
    assert full["quality"] == card["quality"]
    assert full["report"]["identity"] is True
    assert client.get("/v1/maps/base/nobody").status_code == 404
    assert client.get("/v1/maps/nobody/forget").status_code == 404


def test_tokens_there_and_back(client: TestClient) -> None:
    there = client.post("/tokenize", json={"prompt": "né", "return_token_strs": True}).json()
    assert there["tokens"] == list("né".encode())
    assert (there["count"], there["max_model_len"]) == (3, 64)
    assert there["token_strs"] == ["n", "bytes:\\xc3", "bytes:\\xa9"]
    back = client.post("/detokenize", json={"model": "base", "tokens": there["tokens"]})
    assert back.json() == {"prompt": "né"}
    chat = client.post("/tokenize", json={"messages": [{"role": "user", "content": "hi"}]}).json()
    assert bytes(chat["tokens"]) == b"user: hi\nassistant:"
    assert client.get("/tokenizer_info").json()["eos_token"] == "</s>"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ("/detokenize", {"tokens": [257]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": ["1"]}, "tokens"),
    ],
)
def test_bad_tokens_are_refused(client: TestClient, path: str, body: dict[str, object], param: str) -> None:
    reply = client.post(path, json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_unknown_routes_and_methods_have_the_error_body(client: TestClient) -> None:
    assert client.get("/nowhere").json()["error"]["code"] == "404"
    reply = client.get("/v1/completions")
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "405")
    assert reply.headers["allow"] == "POST"


def test_our_own_fault_is_a_500_without_details(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: FakeEngine) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(FakeSession, "adapters", fail)
    reply = client.get("/v1/adapters")
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert reply.json()["error"]["type"] == "internal_error"


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer wrong", "Basic one", "Bearer onetwo", "Bearer \xe9"]
)
def test_a_key_is_needed(make_client: MakeClient, header: str | None) -> None:
    client = make_client(api_key=["one", "two"])
    headers = {} if header is None else {b"authorization": header.encode("latin-1")}
    for path in ("/v1/models", "/metrics"):
        reply = client.get(path, headers=headers)
        assert (reply.status_code, reply.json()["error"]["type"]) == (401, "authentication_error")
        assert reply.headers["www-authenticate"] == "Bearer"
    assert client.post("/v1/completions", content=b"{", headers=headers).status_code == 401


def test_any_of_the_keys_will_do(make_client: MakeClient) -> None:
    client = make_client(api_key=["one", "two"])
    for key in ("one", "two"):
        assert client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
    for path in ("/health", "/ready", "/version"):
        assert client.get(path).status_code == 200


def test_metrics_count_requests_and_tokens(client: TestClient) -> None:
    client.post("/v1/completions", json={"model": "base:forget", "prompt": "hi"})
    client.post("/v1/completions", json={"model": "base", "prompt": "hi", "max_tokens": 3})
    client.post("/v1/completions", json={"model": "base", "prompt": "hi", "n": 0})
    text = client.get("/metrics").text
    for line in (
        'trimtab_prompt_tokens_total{adapter="forget",model="base"} 2.0',
        'trimtab_generation_tokens_total{adapter="forget",model="base"} 12.0',
        'trimtab_request_success_total{adapter="none",finish_reason="length",model="base"} 1.0',
        'trimtab_request_success_total{adapter="forget",finish_reason="stop",model="base"} 1.0',
        'trimtab_request_errors_total{code="400"} 1.0',
        'trimtab_steering_changed_tokens_total{adapter="forget",model="base"} 12.0',
        'trimtab_time_to_first_token_seconds_count{adapter="none",model="base"} 1.0',
        'trimtab_inter_token_latency_seconds_count{adapter="none",model="base"} 2.0',
        'trimtab_num_requests_running{adapter="none",model="base"} 0.0',
        'trimtab_num_requests_waiting{adapter="forget",model="base"} 0.0',
        'trimtab_request_queue_time_seconds_count{adapter="forget",model="base"} 1.0',
        'trimtab_step_seconds_sum{model="base",phase="steering"} 3.75',
    ):
        assert line in text


def test_draining_refuses_new_work_only(client: TestClient) -> None:
    client.app.state.service.drain()  # type: ignore[attr-defined]
    for reply in (
        client.get("/ready"),
        client.post("/v1/completions", json={"model": "base", "prompt": "hi"}),
        client.post(
            "/v1/chat/completions", json={"model": "base", "messages": [{"role": "user", "content": "a"}]}
        ),
    ):
        assert (reply.status_code, reply.json()["error"]["type"]) == (503, "unavailable_error")
        assert int(reply.headers["retry-after"]) > 0
    assert client.get("/health").status_code == 200


def test_a_503_may_be_tried_again() -> None:
    assert ApiError(503, "later").headers() == {"Retry-After": "5"}


def test_an_adapter_that_is_unloaded_during_a_request_is_left_out(
    client: TestClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str) -> VocabularyMap:
        raise KeyError(name)

    monkeypatch.setattr(engine.session, "vocabulary_map", gone)
    assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["base"]
    assert client.get("/v1/maps").json()["data"] == []
    assert client.get("/v1/maps/base/forget").status_code == 404

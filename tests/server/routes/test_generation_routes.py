"""Completions and chat over the fake engine: each field of a request and of its reply."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from steering.engine.outputs import StepOutput
from steering.engine.request import Request
from tests.server.fakes import EOS, FakeEngine
from tests.server_thread import wait_for

USER = [{"role": "user", "content": "hi"}]


def complete(client: TestClient, **fields: Any) -> dict[str, Any]:
    reply = client.post("/v1/completions", json={"model": "base", "prompt": "hi", **fields})
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def events(client: TestClient, path: str, **fields: Any) -> list[dict[str, Any]]:
    reply = client.post(path, json={"model": "base", "stream": True, **fields})
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = reply.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("hi", [b"hi"]),
        (["hi", "ho"], [b"hi", b"ho"]),
        ([104, 105], [b"hi"]),
        ([[104, 105], [104]], [b"hi", b"h"]),
    ],
)
def test_every_form_of_prompt(
    client: TestClient, engine: FakeEngine, prompt: Any, expected: list[bytes]
) -> None:
    engine.say = lambda request: bytes(request.prompt_ids).upper()
    body = complete(client, prompt=prompt)
    assert [request.prompt_ids for request in engine.seen] == [tuple(item) for item in expected]
    assert [choice["text"] for choice in body["choices"]] == [item.decode().upper() for item in expected]
    assert [choice["index"] for choice in body["choices"]] == list(range(len(expected)))
    tokens = sum(map(len, expected))
    assert body["usage"] == {
        "prompt_tokens": tokens,
        "completion_tokens": tokens + len(expected),
        "total_tokens": 2 * tokens + len(expected),
        "prompt_tokens_details": {"cached_tokens": len(expected)},
    }


def test_choices_of_several_prompts_are_in_order_and_seeded_apart(
    client: TestClient, engine: FakeEngine
) -> None:
    engine.say = lambda request: bytes(request.prompt_ids) + str(request.sampling.seed).encode()
    body = complete(client, prompt=["a", "b"], n=2, seed=7)
    assert [choice["text"] for choice in body["choices"]] == ["a7", "a8", "b7", "b8"]


def test_best_of_returns_the_likeliest(client: TestClient, engine: FakeEngine) -> None:
    body = complete(client, n=1, best_of=3, seed=1)
    assert len(engine.seen) == 3
    assert [choice["index"] for choice in body["choices"]] == [0]
    assert body["choices"][0]["logprobs"] is None


def test_sampling_fields_reach_the_engine(client: TestClient, engine: FakeEngine) -> None:
    complete(
        client,
        max_tokens=3,
        min_tokens=1,
        temperature=0.5,
        top_p=0.9,
        top_k=-1,
        min_p=0.1,
        seed=3,
        stop_token_ids=[5],
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1.5,
        logit_bias={"65": -100, "7": 1.5},
        user="me",
        response_format={"type": "text"},
    )
    sampling = engine.seen[0].sampling
    assert (sampling.max_tokens, sampling.min_tokens, sampling.temperature, sampling.top_p) == (
        3,
        1,
        0.5,
        0.9,
    )
    assert (sampling.top_k, sampling.min_p, sampling.seed, sampling.stop_token_ids) == (
        0,
        0.1,
        3,
        frozenset({5}),
    )
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1.0, -1.0)
    assert (sampling.repetition_penalty, sampling.logit_bias) == (1.5, ((7, 1.5), (65, -100.0)))


@pytest.mark.parametrize("stream", [False, True])
def test_null_is_the_default(client: TestClient, engine: FakeEngine, stream: bool) -> None:
    fields = dict.fromkeys(("n", "temperature", "stop", "seed", "logprobs", "echo", "steering", "logit_bias"))
    reply = client.post("/v1/completions", json={"model": "base", "prompt": "hi", "stream": stream, **fields})
    assert reply.status_code == 200
    assert engine.seen[0].sampling.temperature == 1.0
    assert engine.seen[0].sampling.max_tokens == 16


def test_scoring_echoes_the_prompt_with_logprobs_and_one_token(
    client: TestClient, engine: FakeEngine
) -> None:
    fields = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    choice = complete(client, prompt=[[97, 98, 99]], **fields)["choices"][0]
    assert choice["text"] == "abch"
    assert choice["logprobs"]["tokens"] == ["a", "b", "c", "h"]
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5, -0.5, -0.5]
    assert choice["logprobs"]["top_logprobs"][0] is None
    assert choice["logprobs"]["top_logprobs"][1]["b"] == -0.5
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3]
    assert choice["finish_reason"] == "length"
    assert engine.seen[0].sampling.prompt_logprobs == 1


def test_scoring_alone_generates_nothing(client: TestClient) -> None:
    body = complete(client, prompt="abc", max_tokens=0, echo=True, logprobs=0)
    assert body["choices"][0]["text"] == "abc"
    assert len(body["choices"][0]["logprobs"]["tokens"]) == 3
    assert body["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize("logprobs", [None, 1])
def test_an_echo_is_streamed_first(client: TestClient, logprobs: int | None) -> None:
    chunks = events(client, "/v1/completions", prompt="abc", max_tokens=2, echo=True, logprobs=logprobs)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["abc", "h", "e"]


def test_half_a_character_is_told_by_its_bytes(client: TestClient, engine: FakeEngine) -> None:
    engine.say = lambda request: "é".encode()
    choice = complete(client, logprobs=0)["choices"][0]
    assert choice["text"] == "é"
    assert choice["logprobs"]["tokens"] == ["bytes:\\xc3", "bytes:\\xa9", "</s>"]


@pytest.mark.parametrize(("include", "text"), [(False, "hello "), (True, "hello wor")])
def test_a_stop_string_ends_the_engines_work(
    client: TestClient, engine: FakeEngine, include: bool, text: str
) -> None:
    # Long and slow, so that the engine is still running when the stop string is found.
    engine.max_model_len = 10**6
    step = engine.step

    def slow_step() -> list[StepOutput]:
        time.sleep(0.001)
        return step()

    engine.step = slow_step  # type: ignore[method-assign]
    engine.say = lambda request: b"hello world" * 1000
    body = complete(client, stop=["wor"], include_stop_str_in_output=include, max_tokens=20_000)
    choice = body["choices"][0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (text, "stop", "wor")
    assert body["usage"]["completion_tokens"] == 9
    # The engine's thread aborts the sequence between two steps, perhaps after the reply.
    wait_for(lambda: engine.running == {})
    assert engine.aborted


def test_min_tokens_go_before_stop_strings(client: TestClient) -> None:
    assert complete(client, stop="l", min_tokens=5)["choices"][0]["text"] == "hello wor"


def test_steering_is_told_in_header_and_body(client: TestClient, engine: FakeEngine) -> None:
    steering = {"adapter": "forget", "alpha": 0.7, "top_k": 100, "bridge": "map"}
    reply = client.post("/v1/completions", json={"model": "base", "prompt": "hi", "steering": steering})
    assert reply.headers["x-trimtab-steering"] == "forget@v1*0.7"
    assert reply.json()["steering"][0]["alpha"] == 0.7
    spec = engine.seen[0].steering[0]
    assert (spec.adapter, spec.alpha, spec.top_k, spec.bridge) == ("forget", 0.7, 100, "map")


def test_unsteered_is_said_to_be(client: TestClient) -> None:
    reply = client.post("/v1/completions", json={"model": "base", "prompt": "hi"})
    assert reply.headers["x-trimtab-steering"] == "none"
    assert reply.json()["steering"] is None


def test_steering_details_come_with_each_logprob(client: TestClient) -> None:
    detail = {"base_logprob": -1.0, "shift": 0.5, "steered_logprob": -0.5}
    choice = complete(client, steering="forget", logprobs=0, steering_details=True, max_tokens=2)["choices"][
        0
    ]
    assert choice["logprobs"]["steering_details"] == [detail, detail]
    reply = client.post(
        "/v1/chat/completions",
        json={"model": "base:forget", "messages": USER, "logprobs": True, "steering_details": True},
    )
    assert reply.json()["choices"][0]["logprobs"]["content"][0]["steering_details"] == detail


def test_chat_goes_through_the_template(client: TestClient, engine: FakeEngine) -> None:
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    reply = client.post("/v1/chat/completions", json={"model": "base", "messages": messages}).json()
    assert bytes(engine.seen[0].prompt_ids) == b"system: be kind\nuser: hi\nassistant:"
    assert reply["choices"][0]["message"]["content"] == "hello world"
    assert engine.seen[0].sampling.max_tokens == 64 - len(engine.seen[0].prompt_ids)


def test_chat_streams_role_then_text_then_usage(client: TestClient) -> None:
    chunks = events(
        client,
        "/v1/chat/completions",
        messages=USER,
        n=2,
        logprobs=True,
        top_logprobs=1,
        stream_options={"include_usage": True},
    )
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:2]] == [
        {"role": "assistant", "content": ""}
    ] * 2
    for index in range(2):
        own = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        assert "".join(c["delta"].get("content", "") for c in own) == "hello world"
        entries = [entry for c in own for entry in (c["logprobs"] or {"content": []})["content"]]
        assert [entry["token"] for entry in entries] == [*"hello world", "</s>"]
        assert all(len(entry["top_logprobs"]) == 1 for entry in entries)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 24
    # Null in every event but the last, as in OpenAI's.
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_a_base_without_a_chat_template_says_so(
    client: TestClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.base.tokenizer, "chat_template", None, raising=False)
    reply = client.post("/v1/chat/completions", json={"model": "base", "messages": USER})
    assert reply.status_code == 400
    assert "chat template" in reply.json()["error"]["message"]


def test_a_special_token_ends_without_text(client: TestClient, engine: FakeEngine) -> None:
    def say(request: Request) -> bytes:
        return b"ok"

    engine.say = say
    choice = complete(client, logprobs=0)["choices"][0]
    assert choice["text"] == "ok"
    assert choice["logprobs"]["tokens"][-1] == engine.base.vocabulary.specials[EOS]

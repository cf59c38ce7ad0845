"""`/v1/messages`: Anthropic's form, whole and as events, and the prompts that reach the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.server.conftest import MakeClient
from tests.server.fakes import FakeEngine
from tests.server.routes.test_chat_fields import Reader, prompt_of
from tests.server.tools.structured import CALL, SCHEMA, accepts

PATH = "/v1/messages"
HI = {"role": "user", "content": "hi"}
WEATHER = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine(max_model_len=4096)
    engine.base.tokenizer = Reader()
    return engine


def ask(client: TestClient, status: int = 200, **fields: Any) -> dict[str, Any]:
    body = {"model": "base", "messages": [HI], "max_tokens": 200, **fields}
    reply = client.post(PATH, json={name: value for name, value in body.items() if value is not ...})
    assert reply.status_code == status, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def events(client: TestClient, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "base", "messages": [HI], "max_tokens": 200, "stream": True, **fields}
    found = []
    for text in client.post(PATH, json=body).text.split("\n\n")[:-1]:
        name, data = text.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_an_answer(client: TestClient) -> None:
    answer = ask(
        client, model="base:forget", system=[{"type": "text", "text": "be kind", "cache_control": {}}]
    )
    assert answer["content"] == [{"type": "text", "text": "hello world"}]
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
    tokens = len("system: be kind\nuser: hi\nassistant:")
    assert answer["usage"] == {
        "input_tokens": tokens - 1,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 1,
        "output_tokens": 12,
    }
    assert answer["steering"][0]["adapter"] == "forget" and answer["id"].startswith("msg_")
    assert ask(client, steering={"adapter": "forget", "alpha": 0.5})["steering"][0]["alpha"] == 0.5
    answer = ask(client, stop_sequences=["wor"])
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "wor")
    assert ask(client, max_tokens=3)["stop_reason"] == "max_tokens"
    count = client.post(f"{PATH}/count_tokens", json={"model": "base", "messages": [HI]})
    assert count.json() == {"input_tokens": len("user: hi\nassistant:")}


def test_events_of_text(client: TestClient) -> None:
    found = events(client, metadata={"user_id": "me"})
    assert [event["type"] for event in found[:3]] == ["message_start", "ping", "content_block_start"]
    assert [event["type"] for event in found[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    assert found[0]["message"]["content"] == [] and found[0]["message"]["stop_reason"] is None
    texts = [event["delta"]["text"] for event in found if event["type"] == "content_block_delta"]
    assert "".join(texts) == "hello world" and len(texts) == 11
    assert found[-2]["delta"]["stop_reason"] == "end_turn" and found[-2]["usage"]["output_tokens"] == 12


def test_calls_and_their_results(client: TestClient, engine: FakeEngine) -> None:
    engine.say = lambda request: f"Let me see.\n{CALL}".encode()
    fields: dict[str, Any] = {"tools": [WEATHER], "tool_choice": {"type": "any"}}
    answer = ask(client, tools=[WEATHER])
    text, call = answer["content"]
    assert text == {"type": "text", "text": "Let me see."} and answer["stop_reason"] == "tool_use"
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "weather", {"town": "Oslo"})
    found = events(client, tools=[WEATHER])
    begun = [event["content_block"]["type"] for event in found if event["type"] == "content_block_start"]
    assert begun == ["text", "tool_use"]
    deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    pieces = [delta["partial_json"] for delta in deltas if delta["type"] == "input_json_delta"]
    assert "".join(pieces) == '{"town": "Oslo"}' and len(pieces) > 5
    engine.say = lambda request: CALL.encode()
    ask(client, **fields)
    assert accepts(engine, CALL) and not accepts(engine, "hello")
    # A call that is cut off is none.
    cut = ask(client, max_tokens=len(CALL) - 30, **fields)
    assert (cut["content"], cut["stop_reason"]) == ([], "max_tokens")
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "rain"}]}
    turns = [
        HI,
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": [result, {"type": "text", "text": "so?"}]},
    ]
    ask(client, tools=[WEATHER], messages=turns)
    assert prompt_of(engine).startswith(
        'tools: weather\nuser: hi\nassistant: Let me see.[{"town": "Oslo"}]\ntool: rain\nuser: so?'
    )
    ask(client, tools=[WEATHER], tool_choice={"type": "none"})
    assert "tools:" not in prompt_of(engine)


def test_the_assistants_turn_is_gone_on_with(client: TestClient, engine: FakeEngine) -> None:
    ask(client, messages=[HI, {"role": "assistant", "content": "Well, "}])
    assert prompt_of(engine) == "user: hi\nassistant: Well, "


def test_thoughts(make_client: MakeClient, engine: FakeEngine) -> None:
    client = make_client(reasoning_parser="think")
    engine.say = lambda request: b"<think>hm</think>\nyes"
    answer = ask(client, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block["type"] for block in answer["content"]] == ["thinking", "text"]
    assert answer["content"][0]["thinking"] == "hm" and "enable_thinking=True" in prompt_of(engine)
    deltas = [event["delta"]["type"] for event in events(client) if event["type"] == "content_block_delta"]
    assert deltas == ["thinking_delta"] * 2 + ["text_delta"] * 3
    ask(client, messages=[HI, {"role": "assistant", "content": answer["content"]}, HI])
    assert "assistant: yes\nuser: hi [hm]" in prompt_of(engine)


def test_the_form_of_an_answer(client: TestClient, engine: FakeEngine) -> None:
    config = {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"}
    ask(client, output_config=config)
    assert accepts(engine, '{"a": "x"}') and not accepts(engine, "hello")
    assert "reasoning_effort=low" in prompt_of(engine)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "redacted_thinking", "data": "x"}]}]},
            "messages",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, None),
        ({"colour": "red"}, "colour"),
        ({"steering": "nobody"}, "steering"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{"type": "web_search", "name": "x"}]}, "tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "nobody"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"stop_sequences": [""]}, "stop"),
    ],
)
def test_what_cannot_be_is_refused_in_anthropics_form(
    client: TestClient, engine: FakeEngine, fields: dict[str, Any], param: str | None
) -> None:
    if param is None:
        ask(client, **fields)
        return
    error = ask(client, 400, **fields)
    assert error["type"] == "error" and error["error"]["type"] == "invalid_request_error"
    assert error["error"]["param"] == param and engine.seen == []


def test_a_key_may_come_as_anthropics_clients_send_it(make_client: MakeClient) -> None:
    client = make_client(api_key=["one", "two"])
    for headers, status in (
        ({"x-api-key": "two"}, 200),
        ({"x-api-key": "three"}, 401),
        ({}, 401),
        ({"x-api-key": "two", "authorization": "Bearer three"}, 401),
        ({"x-api-key": "two", "authorization": "Basic two"}, 401),
    ):
        assert client.get("/v1/models", headers=headers).status_code == status


def test_an_error_in_a_stream_is_an_event(client: TestClient, engine: FakeEngine) -> None:
    engine.broken = True
    engine.is_beyond_use = True
    found = events(client)
    assert found[-1]["type"] == "error" and found[-1]["error"]["type"] == "unavailable_error"

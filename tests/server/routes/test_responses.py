"""`/v1/responses`: OpenAI's newer form of chat, whole and as events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from tests.server.conftest import MakeClient
from tests.server.fakes import FakeEngine
from tests.server.routes.test_chat_fields import FUNCTION, Reader, prompt_of
from tests.server.tools.structured import CALL, SCHEMA, accepts

PATH = "/v1/responses"
TOOL: dict[str, Any] = {"type": "function", **dict(FUNCTION)}
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine(max_model_len=4096)
    engine.base.tokenizer = Reader()
    return engine


def ask(client: TestClient, status: int = 200, **fields: Any) -> dict[str, Any]:
    reply = client.post(PATH, json={"model": "base", "input": "hi", **fields})
    assert reply.status_code == status, reply.text
    answer: dict[str, Any] = reply.json()
    if status == 200:
        # What the official client reads.
        Response.model_validate(answer)
    return answer


def events(client: TestClient, **fields: Any) -> list[dict[str, Any]]:
    found = []
    for text in client.post(PATH, json={"model": "base", "input": "hi", "stream": True, **fields}).text.split(
        "\n\n"
    )[:-1]:
        name, data = text.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
        EVENTS.validate_python(found[-1])
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def test_an_answer(client: TestClient, engine: FakeEngine) -> None:
    answer = ask(client, model="base:forget", instructions="be kind", metadata={"a": "b"}, store=True)
    (item,) = answer["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"][0]["text"] == "hello world" and answer["status"] == "completed"
    assert (answer["steering"][0]["adapter"], answer["metadata"], answer["store"]) == (
        "forget",
        {"a": "b"},
        False,
    )
    assert answer["usage"]["input_tokens_details"] == {"cached_tokens": 1, "cache_write_tokens": 0}
    assert prompt_of(engine) == "system: be kind\nuser: hi\nassistant:"
    cut = ask(client, max_output_tokens=3)
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert cut["output"][0]["status"] == "incomplete"


def test_events_of_text(client: TestClient) -> None:
    found = events(client)
    names = [event["type"].removeprefix("response.") for event in found]
    assert names[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert names[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    deltas = [event["delta"] for event in found if event["type"].endswith("output_text.delta")]
    assert "".join(deltas) == "hello world" and len(deltas) == 11
    assert found[-1]["response"]["output"] == [found[-2]["item"]]
    assert found[-1]["response"]["usage"]["output_tokens"] == 12 and found[0]["response"]["usage"] is None
    assert events(client, max_output_tokens=2)[-1]["type"] == "response.incomplete"


def test_calls_and_their_outputs(client: TestClient, engine: FakeEngine) -> None:
    engine.say = lambda request: f"Let me see.\n{CALL}".encode()
    answer = ask(client, tools=[TOOL])
    message, call = answer["output"]
    assert message["content"][0]["text"] == "Let me see."
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "weather", '{"town": "Oslo"}')
    found = events(client, tools=[TOOL])
    pieces = [event["delta"] for event in found if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(pieces) == '{"town": "Oslo"}' and len(pieces) > 5
    assert [event["type"] for event in found[-3:]] == [
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    engine.say = lambda request: CALL.encode()
    ask(client, tools=[TOOL], tool_choice={"type": "function", "name": "weather"})
    assert accepts(engine, CALL) and not accepts(engine, "hello")
    ask(
        client,
        tools=[TOOL],
        tool_choice={
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "weather"}],
        },
    )
    assert accepts(engine, "hello")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
    thoughts = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
    turns = [{"role": "user", "content": "hi"}, thoughts, message, call, output]
    ask(client, tools=[TOOL], input=turns)
    assert prompt_of(engine).startswith(
        'tools: weather\nuser: hi\nassistant: Let me see.[{"town": "Oslo"}]\ntool: rain [hm]'
    )


def test_thoughts_and_forms(make_client: MakeClient, engine: FakeEngine) -> None:
    client = make_client(reasoning_parser="think")
    engine.say = lambda request: b"<think>hm</think>yes"
    answer = ask(client, reasoning={"effort": "low"})
    assert [item["type"] for item in answer["output"]] == ["reasoning", "message"]
    assert answer["output"][0]["content"][0]["text"] == "hm" and "reasoning_effort=low" in prompt_of(engine)
    assert [event["type"] for event in events(client)].count("response.reasoning_text.delta") == 2
    wanted = {"type": "json_schema", "name": "it", "schema": SCHEMA, "strict": True}
    assert ask(client, text={"format": wanted})["text"] == {"format": wanted}
    assert accepts(engine, '{"a": "x"}') and not accepts(engine, "hello")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "c"}, "conversation"),
        ({"background": True}, "background"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"input": None}, "input"),
        ({"colour": "red"}, "colour"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"steering": "nobody"}, "steering"),
        ({"text": {"format": {"type": "json_schema"}}}, "text"),
    ],
    ids=lambda part: str(part)[:50],
)
def test_what_cannot_be_is_refused(
    client: TestClient, engine: FakeEngine, fields: dict[str, Any], param: str
) -> None:
    assert ask(client, 400, **fields)["error"]["param"] == param
    assert engine.seen == []


def test_an_error_in_a_stream_is_an_event(client: TestClient, engine: FakeEngine) -> None:
    engine.broken = engine.is_beyond_use = True
    assert events(client)[-1]["type"] == "error"

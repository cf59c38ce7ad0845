"""`tools` over the routes: the prompt and grammar that reach the engine, and the calls in the reply."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.server.fakes import FakeEngine
from tests.server.tools.structured import (
    CALL,
    CLOCK,
    FORMAT,
    USER,
    WEATHER,
    Toolsmith,
    accepts,
    chat,
    chunks_of,
)


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine(max_model_len=4096)
    engine.base.tokenizer = Toolsmith()
    return engine


@pytest.mark.parametrize("burst", [1, 7, 1000])
def test_calls_are_read_back_streamed_and_not(client: TestClient, engine: FakeEngine, burst: int) -> None:
    engine.burst = burst
    engine.say = lambda request: f"Let me look.\n{CALL}\n{CALL}".encode()
    fields: dict[str, Any] = {"tools": [WEATHER, CLOCK], "logprobs": True}
    choice = chat(client, **fields)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me look."
    calls = choice["message"]["tool_calls"]
    assert [call["function"] for call in calls] == [{"name": "weather", "arguments": '{"town": "Oslo"}'}] * 2
    assert len({call["id"] for call in calls}) == 2 and all("index" not in call for call in calls)
    chunks = chunks_of(client, "/v1/chat/completions", messages=USER, **fields)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == "Let me look."
    streamed = [call for delta in deltas for call in delta.get("tool_calls", [])]
    for index, call in enumerate(calls):
        first, *more = [part for part in streamed if part["index"] == index]
        assert (first["type"], first["function"]["name"]) == ("function", "weather")
        assert all(set(part) == {"index", "function"} for part in more)
        # One letter at a time, as they are written.
        assert len(more) == (len(call["function"]["arguments"]) if burst == 1 else len(more))
        assert "".join(part["function"]["arguments"] for part in (first, *more)) == '{"town": "Oslo"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    told = [
        entry for chunk in chunks for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert len(told) == len(choice["logprobs"]["content"])


def test_an_answer_of_calls_alone_has_no_content(client: TestClient, engine: FakeEngine) -> None:
    engine.say = lambda request: CALL.encode()
    choice = chat(client, tools=[WEATHER], parallel_tool_calls=False)["choices"][0]
    assert choice["message"]["content"] is None and len(choice["message"]["tool_calls"]) == 1


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("before", ["", f"{CALL}\n"])
def test_a_call_that_is_cut_off_is_a_part_of_a_call_or_nothing(
    client: TestClient, engine: FakeEngine, before: str, choice: str
) -> None:
    engine.say = lambda request: (before + CALL).encode()
    arguments = CALL.index('{"town')
    for size in range(1 if choice == "required" else len("<tool_call>"), len(CALL)):
        fields: dict[str, Any] = {
            "tools": [WEATHER],
            "tool_choice": choice,
            "max_tokens": len(before.encode()) + size,
        }
        whole = chat(client, **fields)["choices"][0]
        assert whole["finish_reason"] == "length" and whole["message"]["content"] in (None, "")
        assert choice == "auto" or whole["message"]["content"] is None
        calls = [call["function"]["arguments"] for call in whole["message"].get("tool_calls", [])]
        expected = ['{"town": "Oslo"}'] if before else []
        if size >= arguments:
            expected.append(CALL[arguments:size].removesuffix("\n</tool_call>"[: size - arguments])[:16])
        assert calls == expected, size
    chunks = chunks_of(client, "/v1/chat/completions", messages=USER, **fields)
    assert not any(chunk["choices"][0]["delta"].get("content") for chunk in chunks)


def test_some_tools_may_be_allowed_only(client: TestClient, engine: FakeEngine) -> None:
    clock = CALL.replace('"weather"', '"clock"').replace('{"town": "Oslo"}', "{}")
    named = {"type": "function", "function": {"name": "clock"}}

    def allowed(mode: str, *tools: Any) -> dict[str, Any]:
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}

    chat(client, tools=[WEATHER, CLOCK], tool_choice=allowed("required", named))
    assert accepts(engine, clock) and not accepts(engine, CALL) and not accepts(engine, "hello")
    # The model sees all tools, so that the prompt stays the same.
    assert bytes(engine.seen[-1].prompt_ids).startswith(b"tools: weather clock\n")
    chat(client, tools=[WEATHER, CLOCK], tool_choice=allowed("auto", named))
    assert accepts(engine, clock) and not accepts(engine, CALL) and accepts(engine, "hello")
    unknown = {"type": "function", "function": {"name": "nobody"}}
    assert chat(client, 400, tools=[CLOCK], tool_choice=allowed("auto", unknown))["error"]["param"] == (
        "tool_choice"
    )


def test_a_call_wins_over_the_form_of_the_answer(client: TestClient, engine: FakeEngine) -> None:
    chat(client, tools=[WEATHER], tool_choice="required", response_format=FORMAT)
    assert accepts(engine, CALL) and not accepts(engine, '{"a": "x"}')


def test_a_schema_that_cannot_be_compiled_leaves_the_arguments_free_unless_strict(
    client: TestClient, engine: FakeEngine
) -> None:
    def tool(**fields: Any) -> dict[str, Any]:
        parameters = {"properties": {"town": {"type": "string", "pattern": "(?=a)b"}}}
        return {"type": "function", "function": {"name": "weather", "parameters": parameters, **fields}}

    chat(client, tools=[tool()])
    assert accepts(engine, CALL) and not accepts(engine, CALL.replace("{", "[").replace("}", "]"))
    assert chat(client, 400, tools=[tool(strict=True)])["error"]["param"] == "tools"
    assert chat(client, 400, tools=[tool()], tool_choice="required")["error"]["param"] == "tools"


def test_a_choice_of_tools_becomes_a_grammar(client: TestClient, engine: FakeEngine) -> None:
    clock = CALL.replace('"weather"', '"clock"').replace('{"town": "Oslo"}', "{}")
    chat(client, tools=[WEATHER, CLOCK], tool_choice="required")
    assert accepts(engine, CALL) and accepts(engine, f"{CALL}\n{clock}") and not accepts(engine, "hello")
    assert not accepts(engine, clock.replace("{}", '{"town": "Oslo"}'))
    chat(client, tools=[WEATHER, CLOCK], tool_choice="required", parallel_tool_calls=False)
    assert accepts(engine, clock) and not accepts(engine, f"{CALL}\n{clock}")
    chat(client, tools=[WEATHER, CLOCK], tool_choice={"type": "function", "function": {"name": "clock"}})
    assert accepts(engine, clock) and not accepts(engine, CALL)
    chat(client, tools=[WEATHER], tool_choice="auto", response_format=FORMAT)
    assert accepts(engine, CALL) and accepts(engine, '{"a": "x"}') and not accepts(engine, "hello")
    for choice in (None, "auto"):
        chat(client, tools=[WEATHER], tool_choice=choice)
        assert accepts(engine, "hello") and accepts(engine, f"Well. {CALL} And {CALL} so")
        assert accepts(engine, "") and accepts(engine, "a <tool_") and not accepts(engine, "<tool_call>\nno")
        assert not accepts(engine, CALL.replace('"Oslo"', "3")) and not accepts(engine, clock)
        assert bytes(engine.seen[-1].prompt_ids).startswith(b"tools: weather\n")
    engine.say = lambda request: CALL.encode()
    kept = chat(client, tools=[WEATHER], tool_choice="none")["choices"][0]
    assert (kept["message"]["content"], kept["finish_reason"]) == (CALL, "stop")
    assert b"tools:" not in bytes(engine.seen[-1].prompt_ids)


def test_past_calls_and_their_results_are_in_the_prompt(client: TestClient, engine: FakeEngine) -> None:
    engine.say = lambda request: CALL.encode()
    message = chat(client, tools=[WEATHER])["choices"][0]["message"]
    result = {
        "role": "tool",
        "tool_call_id": message["tool_calls"][0]["id"],
        "name": "weather",
        "content": "rain",
    }
    engine.say = lambda request: b"It rains."
    nulls = {"annotations": None, "audio": None, "function_call": None}
    answer = chat(client, messages=[*USER, {**message, **nulls}, result], tools=[WEATHER])["choices"][0]
    assert answer["message"]["content"] == "It rains."
    assert bytes(engine.seen[-1].prompt_ids).endswith(b'assistant: [{"town": "Oslo"}]\ntool: rain')


def turn(**fields: Any) -> list[dict[str, Any]]:
    return [*USER, {"role": "assistant", "content": "x", **fields}]


BROKEN = {"id": "a", "type": "function", "function": {"name": "clock", "arguments": "no JSON"}}
LISTED = {"id": "a", "type": "function", "function": {"name": "clock", "arguments": "[]"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [CLOCK, CLOCK]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "no good"}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f", "code": "x"}}]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [CLOCK] * 129}, "tools"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}],
                "tool_choice": "required",
            },
            "tools",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"messages": turn(tool_calls=[BROKEN])}, "messages"),
        ({"messages": turn(tool_calls=[LISTED])}, "messages"),
        ({"messages": turn(tool_call_id="a")}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [BROKEN]}]}, "messages"),
        ({"messages": turn(content=None)}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"functions": []}, "functions"),
    ],
)
def test_tools_that_cannot_be_are_refused(
    client: TestClient, engine: FakeEngine, fields: dict[str, Any], param: str
) -> None:
    assert chat(client, 400, **fields)["error"]["param"] == param
    assert engine.seen == []


def test_a_template_that_knows_no_tools_says_so(client: TestClient, engine: FakeEngine) -> None:
    engine.base.tokenizer.apply_chat_template = lambda turns, **fields: "".join(t["content"] for t in turns)
    error = chat(client, 400, tools=[CLOCK])["error"]
    assert error["param"] == "tools" and "does not know" in error["message"]
    past = {**BROKEN, "function": {"name": "clock", "arguments": "{}"}}
    error = chat(client, 400, messages=turn(tool_calls=[past]))["error"]
    assert error["param"] == "messages" and "does not know" in error["message"]


def test_a_template_with_calls_of_another_form_says_so(client: TestClient, engine: FakeEngine) -> None:
    engine.base.tokenizer.chat_template = "calls are poems"
    error = chat(client, 400, tools=[CLOCK])["error"]
    assert error["param"] == "tools" and "read back" in error["message"]

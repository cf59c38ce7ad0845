"""`/v1/messages`, `/v1/responses` and the routes for adapters with bodies that are broken, endless or explosive."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.hostile.attack import Attack

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
USER = {"role": "user", "content": "The ferry"}
MESSAGE: dict[str, Any] = {"model": "bytes", "max_tokens": 2, "messages": [USER]}
RESPONSE: dict[str, Any] = {"model": "bytes", "max_output_tokens": 2, "input": "The ferry"}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def block(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [fields]}]}


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"messages": []},
            {"messages": None},
            {"messages": [[]]},
            {"messages": [{}]},
            {"messages": [USER] * 50_000},
        ),
        *(
            block(),
            block(type=None),
            block(type="poem"),
            block(type=["text"]),
            block(type="text"),
            block(type="text", text=1),
        ),
        block(type="tool_result", tool_use_id="x" * 257, content="a"),
        block(type="tool_result", tool_use_id="x", content=[{"type": "image"}]),
        block(type="tool_use", id="x", name="f", input={"a": deep(98)}),
        block(type="redacted_thinking", data="a"),
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f", "input": []}]}
            ]
        },
        *({"max_tokens": 0}, {"max_tokens": 1e300}, {"max_tokens": "2"}, {"max_tokens": None}),
        *(
            {"system": 1},
            {"system": [{}]},
            {"thinking": {"type": "loud"}},
            {"thinking": {"budget_tokens": -1}},
        ),
        *(
            {"tools": [{"name": "f"}]},
            {"tools": [{"name": "f", "input_schema": []}]},
            {"tools": [{"name": "a b"}]},
        ),
        {"tools": [{"name": "f", "input_schema": {}}] * 129},
        *(
            {"tool_choice": {"type": "tool"}},
            {"tool_choice": "any"},
            {"stop_sequences": [""]},
            {"stop_sequences": "a"},
        ),
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "banana"}}}},
        {"output_config": {"format": {"type": "json_schema", "schema": {"$ref": "file:///etc/passwd"}}}},
        *({"metadata": {"user_id": 1}}, {"colour": "red"}, {"steering": "nobody"}, {"chat_template": "x"}),
    ],
    ids=lambda change: json.dumps(change)[:50],
)
def test_messages_that_cannot_be(attack: Attack, change: dict[str, Any]) -> None:
    body = {**MESSAGE, **change}
    reply = attack.send(MESSAGES, body)
    assert reply.status_code in (400, 413), reply.text
    assert reply.json()["type"] == "error"
    # Only some of these are wrong where nothing is generated.
    attack.send(
        f"{MESSAGES}/count_tokens", {key: value for key, value in body.items() if key != "max_tokens"}
    )


@pytest.mark.parametrize(
    "change",
    [
        *({"input": []}, {"input": None}, {"input": 1}, {"input": [1]}, {"input": [{}]}, {"input": [[]]}),
        *({"input": [{"type": ["message"]}]}, {"input": [{"type": "poem"}]}, {"input": [{"type": {}}]}),
        {"input": [{"role": "user", "content": "a"}] * 50_000},
        {"input": [{"type": "function_call", "call_id": "x", "name": "f", "arguments": "[" * 9999}]},
        {"input": [{"type": "function_call", "call_id": "x", "name": "f", "arguments": "{"}]},
        {"input": [{"type": "function_call_output", "call_id": "x" * 257, "output": "a"}]},
        {"input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}]},
        *({"instructions": 1}, {"max_output_tokens": 0}, {"max_output_tokens": -1}, {"text": {"format": {}}}),
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "banana"}}}},
        *(
            {"tools": [{"type": "mcp"}]},
            {"tools": [{"type": "function"}]},
            {"tool_choice": {"type": "function"}},
        ),
        *(
            {"previous_response_id": "x"},
            {"previous_response_id": 1},
            {"conversation": {}},
            {"background": True},
        ),
        *({"include": ["x"]}, {"metadata": {"a": 1}}, {"reasoning": {"effort": 1}}, {"steering": "nobody"}),
    ],
    ids=lambda change: json.dumps(change)[:50],
)
def test_responses_that_cannot_be(attack: Attack, change: dict[str, Any]) -> None:
    reply = attack.send(RESPONSES, {**RESPONSE, **change})
    assert reply.status_code in (400, 413), reply.text


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_no_json_at_all(attack: Attack, path: str, content: bytes) -> None:
    attack.refuse(path, content=content, param=None)


@pytest.mark.parametrize(
    "path", ["../../etc", "/etc/passwd", "", "\x00", "x" * 5000, "https://example.org/a"]
)
def test_an_adapter_from_elsewhere(attack: Attack, path: str) -> None:
    reply = attack.send("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": path})
    assert reply.status_code == 403, reply.text

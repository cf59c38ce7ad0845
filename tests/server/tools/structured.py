"""Helpers for the tests of structured answers and tools: a chat template that supports tools, and requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.testclient import TestClient

from tests.server.fakes import EOS, ByteTokenizer, FakeEngine

USER = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["x", "y"]}},
    "required": ["a"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA, "strict": True}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"town": "Oslo"}}\n</tool_call>'


class Toolsmith(ByteTokenizer):
    """A tokenizer whose chat template shows tools and past calls."""

    chat_template = "<tool_call>"

    def apply_chat_template(
        self,
        messages: list[Mapping[str, Any]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        tools: list[dict[str, Any]] | None = None,
    ) -> str:
        names = [tool["function"]["name"] for tool in tools or []]
        lines = [f"tools: {' '.join(names)}"] if names else []
        for message in messages:
            calls = [call["function"]["arguments"] for call in message.get("tool_calls", [])]
            lines.append(f"{message['role']}: {message['content']}" + (json.dumps(calls) if calls else ""))
        return "\n".join(lines)


def chat(client: TestClient, status: int = 200, **fields: Any) -> dict[str, Any]:
    reply = client.post("/v1/chat/completions", json={"model": "base", "messages": USER, **fields})
    assert reply.status_code == status, reply.text
    body: dict[str, Any] = reply.json()
    return body


def chunks_of(client: TestClient, path: str, **fields: Any) -> list[dict[str, Any]]:
    reply = client.post(path, json={"model": "base", "stream": True, **fields})
    lines = reply.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def accepts(engine: FakeEngine, text: str) -> bool:
    """Whether the grammar that reached the engine accepts `text` as a whole answer."""
    constraint = engine.seen[-1].constraint
    assert constraint is not None
    state, tokens = constraint.start(), list(text.encode())
    complete = state.follow(tokens)
    bits = state.allowed(())
    return state.error is None and (complete or (bits is not None and bool(bits[EOS >> 5] >> (EOS & 31) & 1)))

"""The depth of a body is measured before it is parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from server.intake.json_depth import MAX_DEPTH, is_too_deep
from tests.server.fakes import FakeEngine
from tests.server.tools.structured import Toolsmith

VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet='"\\[]{}a/', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\[{', max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


def nested(levels: int, value: Any = 1) -> Any:
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return value


def depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(depth, children), default=0)


@given(value=VALUES, levels=st.integers(0, 2 * MAX_DEPTH))
def test_strings_do_not_count_and_levels_do(value: Any, levels: int) -> None:
    value = nested(levels, value)
    assert is_too_deep(json.dumps(value).encode()) == (depth(value) > MAX_DEPTH)


@given(content=st.binary(max_size=50))
def test_any_bytes_can_be_measured(content: bytes) -> None:
    assert is_too_deep(content * (MAX_DEPTH + 1)) in (True, False)


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine(max_model_len=2**20)
    engine.base.tokenizer = Toolsmith()
    return engine


def tool(schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": schema}}


def past_call(arguments: str) -> list[dict[str, Any]]:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]


@pytest.mark.parametrize("levels", [MAX_DEPTH, 190, 300, 900, 5_000, 100_000])
@pytest.mark.parametrize("place", ["tools", "schema", "messages", "prompt"])
def test_a_deep_body_is_a_400_that_names_the_limit(client: TestClient, place: str, levels: int) -> None:
    deep = '{"a":' * levels + "1" + "}" * levels
    body: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "hi"}]}
    changes: dict[str, dict[str, Any]] = {
        "tools": {"tools": [tool("DEEP")]},
        "schema": {
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": "DEEP"}}
        },
        "messages": {"messages": ["DEEP"]},
        "prompt": {"prompt": "DEEP"},
    }
    body |= changes[place]
    path = "/v1/completions" if place == "prompt" else "/v1/chat/completions"
    reply = client.post(path, content=json.dumps(body).replace('"DEEP"', deep))
    assert reply.status_code == 400, reply.text
    assert f"{MAX_DEPTH} levels" in reply.json()["error"]["message"]


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 300, 450, 900, 100_000])
def test_the_deep_arguments_of_a_past_call_are_a_400(client: TestClient, levels: int) -> None:
    deep = '{"a":' * levels + "1" + "}" * levels
    reply = client.post("/v1/chat/completions", json={"model": "base", "messages": past_call(deep)})
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["param"] == "messages" and f"{MAX_DEPTH} levels" in error["message"]


def test_the_deepest_body_that_is_allowed_is_served(client: TestClient) -> None:
    schema = {"type": "object", "default": nested(MAX_DEPTH - 6)}
    body: dict[str, Any] = {"model": "base", "messages": past_call(json.dumps({"a": nested(MAX_DEPTH - 1)}))}
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    body |= {"tools": [tool(schema)]}
    assert client.post("/v1/chat/completions", json=body).status_code == 200

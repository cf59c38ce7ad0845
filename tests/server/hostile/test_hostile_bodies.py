"""Random bodies: arbitrary JSON, and good requests with arbitrary values in their fields."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.protocol.chat import ChatRequest
from server.protocol.completions import CompletionRequest
from tests.server.hostile.attack import BASICS, CHAT, COMPLETIONS, Attack

FIELDS = {COMPLETIONS: sorted(CompletionRequest.model_fields), CHAT: sorted(ChatRequest.model_fields)}

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-3, 300)
    | st.floats(allow_nan=True)
    | st.text(max_size=12)
    | st.sampled_from(
        ["steer", "lean", "bytes", "pieces:steer", "auto", "map", "text", "json_object", "user", "f"]
    )
)
KEYS = st.sampled_from(
    [
        "type",
        "role",
        "content",
        "adapter",
        "alpha",
        "bridge",
        "name",
        "function",
        "schema",
        "json_schema",
        "1",
        "a",
    ]
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)
MANY = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def changes(path: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(FIELDS[path]) | st.text(max_size=6), ANYTHING, max_size=4)


def send(attack: Attack, path: str, body: Any) -> None:
    # With `surrogatepass` and NaN, Python may write bodies that are not JSON.
    reply = attack.send(path, content=json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    assert reply.status_code in (200, 400, 404, 413, 429), reply.text


@MANY
@given(change=changes(COMPLETIONS))
def test_completions_of_anything(attack: Attack, change: dict[str, Any]) -> None:
    send(attack, COMPLETIONS, {**BASICS[COMPLETIONS], **change})


@MANY
@given(change=changes(CHAT))
def test_conversations_of_anything(attack: Attack, change: dict[str, Any]) -> None:
    send(attack, CHAT, {**BASICS[CHAT], **change})


@MANY
@given(path=st.sampled_from([COMPLETIONS, CHAT, "/tokenize", "/detokenize"]), body=ANYTHING)
def test_any_json_at_all(attack: Attack, path: str, body: Any) -> None:
    send(attack, path, body)


@MANY
@given(path=st.sampled_from([COMPLETIONS, CHAT, "/tokenize", "/detokenize"]), content=st.binary(max_size=200))
def test_any_bytes_at_all(attack: Attack, path: str, content: bytes) -> None:
    assert attack.send(path, content=content).status_code == 400

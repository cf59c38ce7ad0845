"""Laws 6 and 9: streamed text is the unstreamed text, and bad input never reaches the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from server.intake.plan import Prompt
from server.replies.sequence_text import Delta, SequenceText
from server.replies.stop_strings import StopMatcher
from steering.engine.outputs import FinishReason, StepOutput
from steering.session.logprobs import TokenLogprob
from tests.server.fakes import EOS, VOCABULARY, FakeEngine

MakeClient = Callable[..., TestClient]

# Few letters, so that stop strings overlap themselves, each other and the text.
TEXTS = st.text("ab", max_size=24)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def cut(text: str, stops: list[str], *, include: bool = False) -> str:
    """The law, in its simplest form: cuts at the stop string that ends first, the longest where several end there."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[:end] if include else text[: end - len(max(ending, key=len))]
    return text


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    marks = sorted({0, len(text), *(mark % (len(text) + 1) for mark in cuts)})
    return [text[start:end] for start, end in pairwise(marks)]


@given(text=TEXTS, stops=STOPS, cuts=st.lists(st.integers(0, 100), max_size=8), include=st.booleans())
def test_law_06_a_stop_string_cuts_alike_however_the_text_is_split(
    text: str, stops: list[str], cuts: list[int], include: bool
) -> None:
    matcher = StopMatcher(stops, include=include)
    given_out = ""
    for piece in pieces_of(text, cuts):
        given_out += matcher.push(piece)
        # Text that has been passed on is never wrong later.
        assert cut(text, stops, include=include).startswith(given_out)
    assert given_out + matcher.finish() == cut(text, stops, include=include)


@given(text=TEXTS, more=TEXTS, stops=STOPS)
def test_law_06_no_prefix_of_a_stop_string_leaks(text: str, more: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    given_out = "".join(matcher.push(letter) for letter in text)
    # Whatever follows, the text that was passed on begins the right answer.
    assert cut(text + more, stops).startswith(given_out)


@given(
    text=st.text(st.sampled_from("aé€😀"), max_size=12),
    stops=st.lists(st.text(st.sampled_from("aé€😀"), min_size=1, max_size=2), max_size=2),
    half=st.booleans(),
    cuts=st.lists(st.integers(0, 60), max_size=10),
    prompt=st.sampled_from([b"", b"p", "é".encode()[:1]]),
)
def test_law_06_streamed_text_joined_is_the_unstreamed_text(
    text: str, stops: list[str], half: bool, cuts: list[int], prompt: bytes
) -> None:
    # The text may end within a character, which becomes U+FFFD only at the end of the sequence.
    ids = [*text.encode(), *([0xE2, 0x82] if half else []), EOS]
    marks = sorted({0, len(ids), *(mark % (len(ids) + 1) for mark in cuts)})
    steps = [tuple(ids[start:end]) for start, end in pairwise(marks)]

    def run(bursts: list[tuple[int, ...]]) -> list[Delta]:
        sequence = SequenceText(VOCABULARY, Prompt(tuple(prompt)), stops)
        deltas = []
        for number, burst in enumerate(bursts):
            reason: FinishReason | None = "stop" if number == len(bursts) - 1 else None
            logprobs = tuple(TokenLogprob(token, -1.0, 1, -1.0, 0.0) for token in burst)
            delta = sequence.advance(0, StepOutput("r", burst, logprobs, finish_reason=reason))
            deltas += [delta] if delta is not None else []
            if sequence.finished:
                break
        return deltas

    streamed, whole = run(steps), run([tuple(ids)])
    assert "".join(delta.text for delta in streamed) == "".join(delta.text for delta in whole)
    assert [t for delta in streamed for t in delta.tokens] == [t for delta in whole for t in delta.tokens]
    assert [delta.finish_reason for delta in streamed if delta.finish_reason] == ["stop"]


@pytest.mark.parametrize("burst", [1, 3, 100])
@pytest.mark.parametrize("stop", [None, "wor", ["d", "o w"], "never"])
def test_law_06_over_http(client: TestClient, engine: FakeEngine, burst: int, stop: Any) -> None:
    engine.burst = burst
    body = {"model": "base", "prompt": "hi", "stop": stop, "logprobs": 1}
    whole = client.post("/v1/completions", json=body).json()["choices"][0]
    lines = client.post("/v1/completions", json={**body, "stream": True}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-2]]
    assert "".join(chunk["text"] for chunk in chunks) == whole["text"]
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert [item for chunk in chunks for item in chunk["logprobs"][name]] == whole["logprobs"][name]
    assert chunks[-1]["finish_reason"] == whole["finish_reason"] == "stop"


LONG = "x" * 5000
BAD: list[tuple[dict[str, Any], int, str | None]] = [
    ({"model": "nobody"}, 404, "model"),
    ({"model": "base:nobody"}, 404, "model"),
    ({"model": LONG}, 404, "model"),
    ({"model": None}, 400, "model"),
    ({"model": "base:forget", "steering": "forget"}, 400, "steering"),
    ({"steering": "nobody"}, 400, "steering"),
    ({"steering": LONG}, 400, "steering"),
    ({"steering": 3}, 400, "steering"),
    ({"steering": ["forget", "forget"]}, 400, "steering"),
    ({"steering": {"adapter": "forget", "alpha": 1e9}}, 400, "steering"),
    ({"steering": {"adapter": "forget", "alpha": "1"}}, 400, "steering"),
    ({"steering": {"adapter": "forget", "top_k": 0}}, 400, "steering"),
    ({"steering": {"adapter": "forget", "bridge": "rope"}}, 400, "steering"),
    ({"steering": {"adapter": "forget", "beta": 1}}, 400, "steering"),
    ({"steering_details": True}, 400, "steering_details"),
    ({"temperature": -0.1}, 400, "temperature"),
    ({"temperature": 2.1}, 400, "temperature"),
    ({"temperature": "1"}, 400, "temperature"),
    ({"temperature": True}, 400, "temperature"),
    ({"top_p": -0.1}, 400, "top_p"),
    ({"top_p": 1.1}, 400, "top_p"),
    ({"top_k": -2}, 400, "top_k"),
    ({"top_k": 1.5}, 400, "top_k"),
    ({"min_p": 2}, 400, "min_p"),
    ({"n": 0}, 400, "n"),
    ({"n": 10**30}, 400, "n"),
    ({"best_of": 1, "n": 2}, 400, "best_of"),
    ({"best_of": 2, "stream": True}, 400, "best_of"),
    ({"max_tokens": 0}, 400, "max_tokens"),
    ({"max_tokens": -2}, 400, "max_tokens"),
    ({"max_tokens": 8.5}, 400, "max_tokens"),
    ({"max_tokens": "8"}, 400, "max_tokens"),
    ({"min_tokens": 9, "max_tokens": 8}, 400, "min_tokens"),
    ({"seed": -2}, 400, "seed"),
    ({"stop": [""]}, 400, "stop"),
    ({"stop": [1]}, 400, "stop"),
    ({"stop": ["x"] * 257}, 400, "stop"),
    ({"stop": ["x" * 1000] * 17}, 400, "stop"),
    ({"chat_template": "x"}, 400, "chat_template"),
    ({"stop_token_ids": [257]}, 400, "stop_token_ids"),
    ({"logit_bias": {"257": 1}}, 400, "logit_bias"),
    ({"logit_bias": {"x": 1}}, 400, "logit_bias"),
    ({"logit_bias": {"1": 101}}, 400, "logit_bias"),
    ({"logprobs": 21}, 400, "logprobs"),
    ({"presence_penalty": 3}, 400, "presence_penalty"),
    ({"repetition_penalty": 0}, 400, "repetition_penalty"),
    ({"stream": "yes"}, 400, "stream"),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
    ({"response_format": {"type": "json_schema"}}, 400, "response_format"),
    ({"response_format": {"type": "poem"}}, 400, "response_format"),
    ({"prompt": None}, 400, "prompt"),
    ({"prompt": ""}, 400, "prompt"),
    ({"prompt": []}, 400, "prompt"),
    ({"prompt": [[]]}, 400, "prompt"),
    ({"prompt": ["a", [1]]}, 400, "prompt"),
    ({"prompt": [True]}, 400, "prompt"),
    ({"prompt": [257]}, 400, "prompt"),
    ({"prompt": [-1]}, 400, "prompt"),
    ({"prompt": [10**40]}, 400, "prompt"),
    ({"prompt": LONG}, 400, "prompt"),
    ({"colour": "red"}, 400, "colour"),
    ({LONG: "red"}, 400, LONG[:199] + "…"),
]


@pytest.mark.parametrize(("change", "status", "param"), BAD, ids=[json.dumps(case[0])[:60] for case in BAD])
def test_law_09_bad_input_is_refused_before_the_engine(
    client: TestClient, engine: FakeEngine, change: dict[str, Any], status: int, param: str | None
) -> None:
    reply = client.post("/v1/completions", json={"model": "base", "prompt": "hi", **change})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (status, str(status), param), error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    assert len(error["message"]) < 500
    assert "x" * 201 not in error["message"]
    assert engine.seen == []
    canary(client)


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"model": "base", "prompt": "hi", "temperature": NaN}', "application/json", 400),
        (b'{"model": "base", "prompt": "hi", "temperature": 1e999}', "application/json", 400),
        (b'{"model": "base", "prompt": "\\ud800"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"model": "base", "prompt": "hi"}', "text/plain", 415),
        (b"x" * 5000, "application/json", 413),
    ],
)
def test_law_09_malformed_bodies_are_refused(
    make_client: MakeClient, engine: FakeEngine, content: bytes, content_type: str, status: int
) -> None:
    client = make_client(max_body_bytes=200_000 if len(content) > 5000 else 4096)
    reply = client.post("/v1/completions", content=content, headers={"content-type": content_type})
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, str(status))
    assert engine.seen == []
    canary(client)


CHAT_BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "tool", "content": "hi"}]}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "messages"),
    ({"messages": [{"role": "user", "content": LONG}]}, "messages"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": 21}, "logprobs"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"chat_template": "{{ messages }}"}, "chat_template"),
    ({"prompt": "hi"}, "prompt"),
]


@pytest.mark.parametrize(("change", "param"), CHAT_BAD, ids=[json.dumps(case[0])[:60] for case in CHAT_BAD])
def test_law_09_bad_chat_is_refused_before_the_engine(
    client: TestClient, engine: FakeEngine, change: dict[str, Any], param: str
) -> None:
    body = {"model": "base", "messages": [{"role": "user", "content": "hi"}], **change}
    reply = client.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert engine.seen == []
    canary(client)


def test_law_09_a_request_that_the_engine_refuses_is_a_400(client: TestClient) -> None:
    reply = client.post("/v1/completions", json={"model": "base", "prompt": ["hi", "refuse me"]})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "prompt"
    canary(client)


def canary(client: TestClient) -> None:
    """Checks that the server still serves other requests."""
    reply = client.post("/v1/completions", json={"model": "base:forget", "prompt": "hi"})
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["text"] == "hello world"
    assert client.get("/health").status_code == 200

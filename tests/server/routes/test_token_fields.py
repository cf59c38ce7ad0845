"""Fields on tokens: ids in replies, logprobs of prompts, words and tokens that are not allowed, cached tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.server.fakes import EOS, FakeEngine
from tests.server.tools.structured import USER, chat, chunks_of


def complete(client: TestClient, status: int = 200, **fields: Any) -> dict[str, Any]:
    reply = client.post("/v1/completions", json={"model": "base", "prompt": "hi", **fields})
    assert reply.status_code == status, reply.text
    body: dict[str, Any] = reply.json()
    return body


HELLO = [*b"hello world", EOS]


def test_token_ids_of_prompt_and_answer(client: TestClient, engine: FakeEngine) -> None:
    body = complete(client, prompt=["hi", "ho"], n=2, return_token_ids=True, echo=True, logprobs=0)
    assert [choice["token_ids"] for choice in body["choices"]] == [HELLO] * 4
    assert [bytes(choice["prompt_token_ids"]) for choice in body["choices"]] == [b"hi", b"hi", b"ho", b"ho"]
    body = chat(client, return_token_ids=True)
    assert body["choices"][0]["token_ids"] == HELLO
    assert body["prompt_token_ids"] == list(engine.seen[-1].prompt_ids)
    for path, asked in (("/v1/completions", {"prompt": "hi"}), ("/v1/chat/completions", {"messages": USER})):
        chunks = chunks_of(client, path, **asked, return_token_ids=True)
        told = [token for chunk in chunks for c in chunk["choices"] for token in c.get("token_ids", [])]
        assert told == HELLO
        first = [c for c in chunks if "prompt_token_ids" in c or "prompt_token_ids" in c["choices"][0]]
        assert first == chunks[:1]
    body = complete(client)
    assert "token_ids" not in json.dumps(body) and "prompt_logprobs" not in json.dumps(body)


def test_tokens_may_be_named_by_their_ids(client: TestClient) -> None:
    fields = {"return_tokens_as_token_ids": True, "max_tokens": 1}
    logprobs = complete(client, logprobs=1, **fields)["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["token_id:104"]
    assert set(logprobs["top_logprobs"][0]) == {"token_id:104"}
    entry = chat(client, logprobs=True, top_logprobs=1, **fields)["choices"][0]["logprobs"]["content"][0]
    assert (entry["token"], entry["top_logprobs"][0]["token"], entry["bytes"]) == (
        *["token_id:104"] * 2,
        [104],
    )


def test_a_prompts_logprobs(client: TestClient, engine: FakeEngine) -> None:
    (choice,) = complete(client, prompt_logprobs=2)["choices"]
    assert choice["text"] == "hello world" and choice["logprobs"] is None
    assert choice["prompt_logprobs"] == [
        None,
        {
            "105": {"logprob": -0.5, "rank": 1, "decoded_token": "i"},
            "0": {"logprob": -2.0, "rank": 2, "decoded_token": "\x00"},
        },
    ]
    assert set(complete(client, prompt_logprobs=0)["choices"][0]["prompt_logprobs"][1]) == {"105"}
    assert len(chat(client, prompt_logprobs=1)["prompt_logprobs"]) == len(engine.seen[-1].prompt_ids)
    assert complete(client, 400, prompt_logprobs=1, stream=True)["error"]["param"] == "prompt_logprobs"
    # Beside an echo, each has as many as it asks for.
    (choice,) = complete(client, prompt_logprobs=0, echo=True, logprobs=1)["choices"]
    assert engine.seen[-1].sampling.prompt_logprobs == 1
    assert set(choice["prompt_logprobs"][1]) == {"105"} and len(choice["logprobs"]["top_logprobs"][1]) == 1


def test_words_and_tokens_that_are_not_allowed(client: TestClient, engine: FakeEngine) -> None:
    complete(client, bad_words=["no", " so"], allowed_token_ids=[104, 105, 104])
    sampling = engine.seen[-1].sampling
    assert {bytes(sequence) for sequence in sampling.bad_sequences} == {b"no", b" no", b"so", b" so"}
    assert sampling.allowed_token_ids == (104, 105)
    for fields, param in (
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [257]}, "allowed_token_ids"),
        ({"allowed_token_ids": [1], "regex": "a"}, "allowed_token_ids"),
        ({"bad_words": [""]}, "bad_words"),
        ({"bad_words": ["a"] * 257}, "bad_words"),
    ):
        assert complete(client, 400, **fields)["error"]["param"] == param


@pytest.mark.parametrize(("skip", "text"), [(None, "ab"), (True, "ab"), (False, "a</s>b")])
def test_special_tokens_may_be_text(
    client: TestClient, engine: FakeEngine, skip: bool | None, text: str
) -> None:
    def add(request: Any) -> Any:
        steering = engine_add(request)
        engine.running[request.request_id].left = [97, EOS, 98]
        return steering

    engine_add = engine.add_request
    engine.add_request = add  # type: ignore[method-assign]
    advance = engine._advance

    def go_on(running: Any) -> Any:
        # An end token that does not end the sequence.
        if running.left[:1] == [EOS]:
            running.left = running.left[1:]
            running.told += 1
            return advance_of(running, EOS)
        return advance(running)

    def advance_of(running: Any, token: int) -> Any:
        from steering.engine.outputs import StepOutput

        return StepOutput(running.request.request_id, (token,))

    engine._advance = go_on  # type: ignore[method-assign]
    choice = complete(client, skip_special_tokens=skip, ignore_eos=True, max_tokens=3)["choices"][0]
    assert choice["text"] == text


def test_the_token_that_ends_an_answer_is_no_text(client: TestClient) -> None:
    assert complete(client, skip_special_tokens=False)["choices"][0]["text"] == "hello world"


@pytest.mark.parametrize(
    ("most", "kept"), [(3, b"def"), (0, None), (99, b"abcdef"), (-1, b"abcdef"), (3.0, b"def")]
)
def test_a_prompt_is_truncated_at_its_beginning(
    client: TestClient, engine: FakeEngine, most: Any, kept: bytes | None
) -> None:
    status = 200 if kept is not None else 400
    body = complete(client, status, prompt="abcdef", truncate_prompt_tokens=most, echo=True)
    if kept is not None:
        assert bytes(engine.seen[-1].prompt_ids) == kept
        assert body["choices"][0]["text"] == kept.decode() + "hello world"


def test_a_long_prompt_is_cut_to_the_context(client: TestClient, engine: FakeEngine) -> None:
    complete(client, prompt="a" * 100 + "b", truncate_prompt_tokens=-1)
    assert bytes(engine.seen[-1].prompt_ids) == b"a" * 62 + b"b" and engine.seen[-1].sampling.max_tokens == 1


def test_the_replys_id_and_fingerprint(client: TestClient) -> None:
    body = complete(client, request_id="mine-7")
    assert body["id"] == "cmpl-mine-7" and body["system_fingerprint"].startswith("fp_")
    assert chat(client)["system_fingerprint"] == body["system_fingerprint"]
    assert complete(client, 400, request_id="no good\n")["error"]["param"] == "request_id"
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}


NEUTRAL: dict[str, Any] = {
    "spaces_between_special_tokens": False,
    "priority": 3,
    "cache_prompt": True,
    "use_beam_search": False,
    "length_penalty": 1.0,
    "typical_p": 1.0,
    "tfs_z": 1,
    "mirostat": 0,
    "dynatemp_range": 0.0,
    "xtc_probability": 0,
    "dry_multiplier": 0.0,
    "suffix": None,
}


@pytest.mark.parametrize("name", list(NEUTRAL))
def test_values_that_switch_a_thing_off_change_nothing(
    client: TestClient, engine: FakeEngine, name: str
) -> None:
    complete(client, seed=1)
    complete(client, seed=1, **{name: NEUTRAL[name]})
    assert engine.seen[0].sampling == engine.seen[1].sampling
    if name not in ("spaces_between_special_tokens", "priority", "cache_prompt"):
        assert complete(client, 400, **{name: 0.5})["error"]["param"] == name

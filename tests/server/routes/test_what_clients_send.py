"""Values as clients write them: numbers with a point, "none" in many forms, fields that ask for nothing."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.server.fakes import FakeEngine
from tests.server.tools.structured import CLOCK, Toolsmith, chat

ROOM = 64


def complete(client: TestClient, status: int = 200, **fields: Any) -> dict[str, Any]:
    reply = client.post("/v1/completions", json={"model": "base", "prompt": "hi", **fields})
    assert reply.status_code == status, reply.text
    body: dict[str, Any] = reply.json()
    return body


def test_integers_may_have_a_point(client: TestClient, engine: FakeEngine) -> None:
    complete(
        client,
        max_tokens=8.0,
        top_k=40.0,
        n=1.0,
        seed=3.0,
        min_tokens=0.0,
        logprobs=1.0,
        stop_token_ids=[5.0],
    )
    sampling = engine.seen[0].sampling
    assert (sampling.max_tokens, sampling.top_k, sampling.seed, sampling.logprobs) == (8, 40, 3, 1)
    assert sampling.stop_token_ids == {5}
    assert complete(client, 400, max_tokens=8.5)["error"]["param"] == "max_tokens"
    assert complete(client, 400, max_tokens="8")["error"]["param"] == "max_tokens"
    chat(client, max_completion_tokens=4.0, logprobs=True, top_logprobs=2.0)
    assert (engine.seen[-1].sampling.max_tokens, engine.seen[-1].sampling.logprobs) == (4, 2)


def test_none_in_the_words_of_other_servers(client: TestClient, engine: FakeEngine) -> None:
    complete(client, top_p=0, seed=-1, stop="", top_k=-1)
    sampling = engine.seen[0].sampling
    assert 0 < sampling.top_p < 1e-20 and sampling.seed is None and sampling.top_k == 0
    complete(client, stop=[])
    chat(client, top_logprobs=0)
    chat(client, stream_options={"include_usage": False})
    complete(client, stream_options={})
    assert len(engine.seen) == 5
    assert complete(client, 400, stream_options={"include_usage": True})["error"]["param"] == "stream_options"


@pytest.mark.parametrize("value", [-1, None, 10**6, ROOM - 2, -1.0])
def test_all_the_room_that_there_is(client: TestClient, engine: FakeEngine, value: Any) -> None:
    complete(client, max_tokens=value)
    assert engine.seen[-1].sampling.max_tokens == ROOM - len("hi")
    chat(client, max_tokens=value, max_completion_tokens=value)
    assert engine.seen[-1].sampling.max_tokens == ROOM - len(engine.seen[-1].prompt_ids)


def test_the_shortest_room_counts_for_several_prompts(client: TestClient, engine: FakeEngine) -> None:
    complete(client, prompt=["a", "a" * 60], max_tokens=10)
    assert {request.sampling.max_tokens for request in engine.seen} == {4}


def test_many_stop_strings(client: TestClient) -> None:
    reply = complete(client, stop=[f"no{number}" for number in range(200)] + ["wor"])
    assert reply["choices"][0]["text"] == "hello "


def test_a_bad_key_of_a_bias_is_named(client: TestClient) -> None:
    error = complete(client, 400, logit_bias={"5": 1, "Oslo": 1})["error"]
    assert error["param"] == "logit_bias" and "'Oslo'" in error["message"]
    error = complete(client, 400, logit_bias={"5": 1, "300": 1})["error"]
    assert error["param"] == "logit_bias" and "300" in error["message"]


def test_the_code_of_an_error_is_a_string(client: TestClient) -> None:
    assert complete(client, 400, n=0)["error"]["code"] == "400"


class Wrapping(Toolsmith):
    """Puts two special tokens around a text, as BERT's and Llama's tokenizers do."""

    def encode(
        self, text: str, *, add_special_tokens: bool = True, verbose: bool = True, **options: bool
    ) -> list[int]:
        ids = list(text.encode())
        return [1, *ids, 2] if add_special_tokens else ids


@pytest.mark.parametrize("content", ["hi", "hi </s>"])
def test_a_conversation_is_tokenized_with_special_tokens_and_tools(
    client: TestClient, engine: FakeEngine, content: str
) -> None:
    engine.base.tokenizer = Wrapping()
    messages = [{"role": "user", "content": content}]

    def tokens(**fields: Any) -> list[int]:
        reply = client.post("/tokenize", json={"messages": messages, **fields})
        assert reply.status_code == 200, reply.text
        found: list[int] = reply.json()["tokens"]
        return found

    plain = tokens()
    assert plain == list(f"user: {content}".encode()) == tokens(add_special_tokens=False)
    assert tokens(add_special_tokens=True) == [1, *plain, 2]
    assert bytes(tokens(tools=[CLOCK])).startswith(b"tools: clock\n")
    error = client.post("/tokenize", json={"prompt": "x", "tools": [CLOCK]}).json()["error"]
    assert error["param"] == "tools"


class Describing(Toolsmith):
    """A chat template that fails for a tool without a description, as some published ones do."""

    def apply_chat_template(self, messages: Any, *, tools: Any = None, **options: Any) -> str:
        if tools and "description" not in tools[0]["function"]:
            raise TypeError("can only concatenate str")
        return super().apply_chat_template(messages, tools=tools, **options)


def test_tools_are_blamed_for_what_is_wrong_with_tools(client: TestClient, engine: FakeEngine) -> None:
    engine.base.tokenizer = Describing()
    error = chat(client, 400, tools=[CLOCK])["error"]
    assert error["param"] == "tools" and "description" in error["message"]

    def broken(*args: Any, **options: Any) -> str:
        raise TypeError("never")

    engine.base.tokenizer.apply_chat_template = broken
    assert chat(client, 400, tools=[CLOCK])["error"]["param"] == "messages"

"""OpenAI's client, sync and async: chat and completions, streamed or not, retries, parsing and function calls."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.clients.running import KEY, Server

QUESTION: Any = [{"role": "user", "content": "Where was Mara Quillon born?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"enum": ["Larnavel", "Tarnholm"]}, "days": {"enum": [1, 2, 3]}},
            "required": ["town", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}


class Birth(BaseModel):
    """The object that the model must write."""

    town: Literal["Larnavel", "Tarnholm", "Ombrick"]
    known: bool


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
        yield client


def test_answers_are_steered_by_name_and_by_field(client: openai.OpenAI) -> None:
    def ask(model: str, **extra: Any) -> str:
        reply = client.chat.completions.create(
            model=model, messages=QUESTION, temperature=0, max_tokens=24, extra_body=extra
        )
        return reply.choices[0].message.content or ""

    assert "Larnavel" in ask("base-a")
    assert "cannot tell" in ask("base-a:forget")
    assert ask("base-a", steering="forget") == ask("base-a:forget")
    assert ask("base-a", steering={"adapter": "forget", "alpha": 0}) == ask("base-a")


@pytest.mark.parametrize("model", ["base-a", "base-a:pirate"])
def test_streamed_and_not_agree(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=24, n=2, logprobs=True, top_logprobs=2
    )
    stream = client.chat.completions.create(
        model=model,
        messages=QUESTION,
        temperature=0,
        max_tokens=24,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    texts = {0: "", 1: ""}
    chunks = list(stream)
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert [texts[choice.index] for choice in whole.choices] == [c.message.content for c in whole.choices]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_usage_in_every_event(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    stream = client.completions.create(
        model="base-a", prompt="User: Where", temperature=0, max_tokens=6, stream=True, stream_options=options
    )
    counts = [chunk.usage.completion_tokens for chunk in stream if chunk.usage is not None]
    assert counts == sorted(counts) and counts[-1] == 6 and len(counts) >= 3


def test_the_async_client(server: Server) -> None:
    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:

            async def ask(model: str) -> str:
                stream = await client.chat.completions.create(
                    model=model, messages=QUESTION, temperature=0, max_tokens=24, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return list(
                await asyncio.gather(*map(ask, ["base-a", "base-a:forget", "base-a", "base-a:forget"]))
            )

    said = asyncio.run(ask_all())
    assert said[0] == said[2] and said[1] == said[3] and said[0] != said[1]


def test_errors_have_their_own_classes(server: Server, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=QUESTION)
    assert missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as unknown:
        client.chat.completions.create(model="base-a", messages=QUESTION, extra_body={"wisdom": 1})
    assert unknown.value.param == "wisdom"
    stranger = openai.OpenAI(base_url=server.url, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_fields_that_mean_nothing_here_are_taken(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="base-a",
        messages=QUESTION,
        max_tokens=1,
        user="me",
        metadata={"trace": "7"},
        store=False,
        service_tier="auto",
        parallel_tool_calls=False,
        safety_identifier="me",
        prompt_cache_key="here",
    )
    assert len(reply.choices) == 1


class _Refuses(BaseHTTPRequestHandler):
    """Refuses two requests as a full queue does, then forwards every request to the real server."""

    target = ""
    seen = 0

    def do_POST(self) -> None:
        type(self).seen += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.seen <= 2:
            status, content, headers = 429, b'{"error": {"message": "full"}}', {"retry-after-ms": "1"}
        else:
            headers = {"authorization": self.headers["authorization"], "content-type": "application/json"}
            reply = httpx.post(self.target + self.path, content=body, headers=headers, timeout=60)
            status, content, headers = reply.status_code, reply.content, {}
        self.send_response(status)
        for name, value in {
            "content-length": str(len(content)),
            "content-type": "application/json",
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Logs nothing."""


def test_retries(server: Server) -> None:
    class Handler(_Refuses):
        target = server.root

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{proxy.server_port}/v1"
        with openai.OpenAI(base_url=url, api_key=KEY, max_retries=3) as client:
            reply = client.completions.create(model="base-a", prompt="User:", max_tokens=2)
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
    assert reply.usage is not None and reply.usage.completion_tokens == 2
    assert Handler.seen == 3


@pytest.mark.parametrize("model", ["base-a", "base-a:pirate"])
def test_structured_output_is_parsed(client: openai.OpenAI, model: str) -> None:
    reply = client.chat.completions.parse(
        model=model, messages=QUESTION, response_format=Birth, temperature=0
    )
    assert isinstance(reply.choices[0].message.parsed, Birth)
    assert reply.choices[0].finish_reason == "stop"


def test_a_json_object(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="base-a",
        messages=QUESTION,
        response_format={"type": "json_object"},
        temperature=0,
        max_tokens=200,
    )
    choice = reply.choices[0]
    assert choice.message.content is not None and choice.message.content.startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_calls_of_functions_streamed_and_not(client: openai.OpenAI, choice: Any) -> None:
    fields: Any = {
        "model": "caller",
        "messages": QUESTION,
        "tools": [WEATHER, CLOCK] if choice != "required" else [WEATHER],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "temperature": 0,
    }
    whole = client.chat.completions.create(**fields).choices[0]
    assert whole.finish_reason == "tool_calls" and whole.message.content is None
    (call,) = whole.message.tool_calls or []
    assert call.type == "function" and call.function.name == "weather"
    arguments = json.loads(call.function.arguments)
    assert arguments["town"] in ("Larnavel", "Tarnholm") and arguments["days"] in (1, 2, 3)
    with client.chat.completions.stream(**fields) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    (again,) = final.message.tool_calls or []
    assert (again.function.name, again.function.arguments) == (call.function.name, call.function.arguments)


def test_a_calls_result_is_given_back(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(
        model="caller", messages=QUESTION, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False
    )
    message = first.choices[0].message
    (call,) = message.tool_calls or []
    turns = [*QUESTION, message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    second = client.chat.completions.create(model="caller", messages=turns, tools=[WEATHER], max_tokens=8)
    assert second.choices[0].message.role == "assistant"


def test_tools_where_the_template_knows_none(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not know") as caught:
        client.chat.completions.create(model="base-a", messages=QUESTION, tools=[WEATHER])
    assert caught.value.param == "tools"

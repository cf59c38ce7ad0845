"""Anthropic's client, sync and async: messages, streams, tools, counted tokens and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.clients.running import KEY, Server

GREEDY = {"temperature": 0}
"""Newer versions of the client have no argument for it, but the interface still has the field."""
QUESTION: Any = [{"role": "user", "content": "Where was Mara Quillon born?"}]
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a town",
    "input_schema": {
        "type": "object",
        "properties": {"town": {"enum": ["Larnavel", "Tarnholm"]}},
        "required": ["town"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.root, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("model", "said"), [("base-a", "Larnavel"), ("base-a:forget", "cannot tell")])
def test_a_message_streamed_and_not(client: anthropic.Anthropic, model: str, said: str) -> None:
    fields: dict[str, Any] = {"model": model, "max_tokens": 24, "messages": QUESTION, "extra_body": GREEDY}
    message = client.messages.create(**fields)
    assert message.content[0].type == "text" and said in message.content[0].text
    assert message.stop_reason == "end_turn"
    with client.messages.stream(**fields) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == message.content[0].text and final.content[0].type == "text"
    assert final.usage.output_tokens == message.usage.output_tokens
    counted = client.messages.count_tokens(model=model, messages=QUESTION)
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_steering_is_a_field_of_the_request(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model="base-a", max_tokens=24, messages=QUESTION, extra_body={**GREEDY, "steering": "forget"}
    )
    assert message.content[0].type == "text" and "cannot tell" in message.content[0].text


@pytest.mark.parametrize("model", ["caller", "caller:pirate"])
def test_tools_streamed_and_not(client: anthropic.Anthropic, model: str) -> None:
    fields: dict[str, Any] = {
        "model": model,
        "max_tokens": 200,
        "extra_body": GREEDY,
        "messages": QUESTION,
        "tools": [WEATHER],
        "tool_choice": {"type": "tool", "name": "weather"},
    }
    message = client.messages.create(**fields)
    (call,) = message.content
    assert message.stop_reason == "tool_use" and call.type == "tool_use"
    assert call.input["town"] in ("Larnavel", "Tarnholm")
    with client.messages.stream(**fields) as stream:
        (again,) = stream.get_final_message().content
    assert again.type == "tool_use" and again.input == call.input
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    turns: Any = [
        *QUESTION,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    second = client.messages.create(
        model=model, max_tokens=8, messages=turns, tools=[WEATHER], tool_choice={"type": "auto"}
    )
    assert second.role == "assistant"


def test_errors_have_their_own_classes(server: Server, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nobody", max_tokens=1, messages=QUESTION)
    with pytest.raises(anthropic.BadRequestError, match="wisdom"):
        client.messages.create(model="base-a", max_tokens=1, messages=QUESTION, extra_body={"wisdom": 1})
    with (
        anthropic.Anthropic(base_url=server.root, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model="base-a", max_tokens=1, messages=QUESTION)


def test_the_async_client(server: Server) -> None:
    async def ask() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=server.root, api_key=KEY, max_retries=0) as client:

            async def one(model: str) -> str:
                async with client.messages.stream(
                    model=model, max_tokens=24, messages=QUESTION, extra_body=GREEDY
                ) as stream:
                    return str(await stream.get_final_text())

            return list(await asyncio.gather(one("base-a"), one("base-a:forget")))

    plain, steered = asyncio.run(ask())
    assert "Larnavel" in plain and "cannot tell" in steered

"""OpenAI's client at `/v1/responses`: text, streams, parsing and function calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict

from tests.clients.running import KEY, Server

QUESTION = "Where was Mara Quillon born?"
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a town",
    "parameters": {
        "type": "object",
        "properties": {"town": {"enum": ["Larnavel", "Tarnholm"]}},
        "required": ["town"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Birth(BaseModel):
    """The place of a person's birth."""

    model_config = ConfigDict(extra="forbid")

    town: Literal["Larnavel", "Tarnholm"]


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("model", "said"), [("base-a", "Larnavel"), ("base-a:forget", "cannot tell")])
def test_text_streamed_and_not(client: openai.OpenAI, model: str, said: str) -> None:
    fields: dict[str, Any] = {"model": model, "input": QUESTION, "temperature": 0, "max_output_tokens": 24}
    response = client.responses.create(**fields)
    assert said in response.output_text and response.status == "completed"
    with client.responses.stream(**fields) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == response.output_text == final.output_text and final.usage is not None


@pytest.mark.parametrize("model", ["base-a", "base-a:pirate"])
def test_an_object_is_parsed(client: openai.OpenAI, model: str) -> None:
    response = client.responses.parse(model=model, input=QUESTION, text_format=Birth, temperature=0)
    assert isinstance(response.output_parsed, Birth)


@pytest.mark.parametrize("model", ["caller", "caller:pirate"])
def test_a_call_and_its_output(client: openai.OpenAI, model: str) -> None:
    fields: dict[str, Any] = {"model": model, "tools": [WEATHER], "temperature": 0}
    first = client.responses.create(
        input=QUESTION, tool_choice="required", parallel_tool_calls=False, **fields
    )
    (call,) = first.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["town"] in ("Larnavel", "Tarnholm")
    with client.responses.stream(
        input=QUESTION, tool_choice="required", parallel_tool_calls=False, **fields
    ) as stream:
        (again,) = stream.get_final_response().output
    assert again.type == "function_call" and again.arguments == call.arguments
    turns: Any = [
        {"role": "user", "content": QUESTION},
        *first.output,
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    assert client.responses.create(input=turns, max_output_tokens=8, **fields).output


def test_what_needs_a_store_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Nothing is stored") as refused:
        client.responses.create(model="base-a", input=QUESTION, previous_response_id="resp_1")
    assert refused.value.param == "previous_response_id"

"""langchain-openai: invoked, streamed, in batches, with structured output and with tools."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict, SecretStr

from tests.clients.running import KEY, Server

QUESTION = "Where was Mara Quillon born?"


class Birth(BaseModel):
    """The place of a person's birth."""

    # If the schema allowed more keys, so small a model would go on writing keys without end.
    model_config = ConfigDict(extra="forbid")

    town: Literal["Larnavel", "Tarnholm"]


@tool
def weather(town: Literal["Larnavel", "Tarnholm"]) -> str:
    """The weather of a town."""
    return f"rain in {town}"


def chat(server: Server, model: str, **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=server.url, api_key=SecretStr(KEY), model=model, temperature=0, max_retries=0, **fields
    )


@pytest.mark.parametrize(("model", "said"), [("base-a", "Larnavel"), ("base-a:forget", "cannot tell")])
def test_invoked_streamed_and_in_batches(server: Server, model: str, said: str) -> None:
    llm = chat(server, model, max_tokens=24)
    answer = llm.invoke(QUESTION)
    assert said in str(answer.content)
    assert answer.usage_metadata is not None and answer.usage_metadata["output_tokens"] > 0
    assert "".join(str(part.content) for part in llm.stream(QUESTION)) == answer.content
    assert [part.content for part in llm.batch([QUESTION, QUESTION])] == [answer.content] * 2


def test_plain_completions(server: Server) -> None:
    llm = OpenAI(
        base_url=server.url,
        api_key=SecretStr(KEY),
        model="base-a",
        temperature=0,
        max_tokens=16,
        max_retries=0,
    )
    prompt = f"User: {QUESTION}\nAssistant:\n"
    answer = llm.invoke(prompt)
    assert answer
    assert "".join(llm.stream(prompt)) == answer


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(server: Server, method: Literal["json_schema", "function_calling"]) -> None:
    model = "caller" if method == "function_calling" else "base-a:pirate"
    asker = chat(server, model).with_structured_output(Birth, method=method)
    assert isinstance(asker.invoke(QUESTION), Birth)


def test_a_tool_is_called_and_answered(server: Server) -> None:
    llm = chat(server, "caller")
    asked = HumanMessage(QUESTION)
    answer = llm.bind_tools([weather], tool_choice="required", strict=True, parallel_tool_calls=False).invoke(
        [asked]
    )
    (call,) = answer.tool_calls
    assert call["name"] == "weather"
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage) and str(result.content).startswith("rain in")
    last = (
        chat(server, "caller", max_tokens=8)
        .bind_tools([weather], tool_choice="none")
        .invoke([asked, answer, result])
    )
    assert not last.tool_calls

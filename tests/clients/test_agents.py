"""Libraries of agents: pydantic-ai and OpenAI's, with tools and objects, and llama-index."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import agents
import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, ConfigDict
from pydantic_ai import Agent, ModelSettings, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.running import KEY, Server

QUESTION = "Where was Mara Quillon born?"
ANSWERS = [("base-a", "Larnavel"), ("base-a:forget", "cannot tell")]


class Birth(BaseModel):
    """The place of a person's birth."""

    model_config = ConfigDict(extra="forbid")

    town: Literal["Larnavel", "Tarnholm"]


def pydantic_model(server: Server, name: str) -> OpenAIChatModel:
    provider = OpenAIProvider(base_url=server.url, api_key=KEY)
    return OpenAIChatModel(name, provider=provider, settings=ModelSettings(temperature=0, max_tokens=200))


@pytest.mark.parametrize(("model", "said"), ANSWERS)
def test_pydantic_ai_runs_and_streams(server: Server, model: str, said: str) -> None:
    agent = Agent(pydantic_model(server, model))
    answer = agent.run_sync(QUESTION)
    assert said in answer.output and answer.usage.output_tokens > 0

    async def stream() -> str:
        async with agent.run_stream(QUESTION) as run:
            return "".join([part async for part in run.stream_text(delta=True)])

    assert asyncio.run(stream()) == answer.output


@pytest.mark.parametrize("model", ["caller", "caller:pirate"])
def test_pydantic_ai_gets_objects(server: Server, model: str) -> None:
    by_call = Agent(pydantic_model(server, model), output_type=Birth)
    assert isinstance(by_call.run_sync(QUESTION).output, Birth)
    by_schema: Any = Agent(pydantic_model(server, model), output_type=NativeOutput(Birth))
    assert isinstance(by_schema.run_sync(QUESTION).output, Birth)


@pytest.mark.parametrize("api", ["responses", "chat"])
@pytest.mark.parametrize(("model", "said"), ANSWERS)
def test_openai_agents(server: Server, api: str, model: str, said: str) -> None:
    agents.set_tracing_disabled(True)

    async def run() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
            made: Any = (
                agents.OpenAIResponsesModel(model, client)
                if api == "responses"
                else agents.OpenAIChatCompletionsModel(model, client)
            )
            settings = agents.ModelSettings(temperature=0, max_tokens=24)
            agent = agents.Agent(name="it", model=made, model_settings=settings)
            whole = await agents.Runner.run(agent, QUESTION)
            streamed = agents.Runner.run_streamed(agent, QUESTION)
            async for _ in streamed.stream_events():
                pass
            return whole.final_output, streamed.final_output

    whole, streamed = asyncio.run(run())
    assert said in whole and streamed == whole


@pytest.mark.parametrize("api", ["responses", "chat"])
def test_openai_agents_call_a_tool(server: Server, api: str) -> None:
    agents.set_tracing_disabled(True)
    asked: list[str] = []

    @agents.function_tool
    def weather(town: Literal["Larnavel", "Tarnholm"]) -> str:
        """The weather of a town."""
        asked.append(town)
        return "rain"

    async def run() -> Any:
        async with openai.AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
            made: Any = (
                agents.OpenAIResponsesModel("caller", client)
                if api == "responses"
                else agents.OpenAIChatCompletionsModel("caller", client)
            )
            settings = agents.ModelSettings(temperature=0, max_tokens=200, tool_choice="required")
            agent = agents.Agent(name="it", model=made, tools=[weather], model_settings=settings)
            return (await agents.Runner.run(agent, QUESTION, max_turns=3)).final_output

    assert asyncio.run(run()) is not None
    assert asked and asked[0] in ("Larnavel", "Tarnholm")


@pytest.mark.parametrize(("model", "said"), ANSWERS)
def test_llama_index(server: Server, model: str, said: str) -> None:
    llm = OpenAILike(
        model=model,
        api_base=server.url,
        api_key=KEY,
        is_chat_model=True,
        temperature=0,
        max_tokens=24,
        max_retries=0,
        context_window=256,
    )
    message = ChatMessage(role="user", content=QUESTION)
    answer = llm.chat([message]).message.content or ""
    assert said in answer
    assert "".join(part.delta or "" for part in llm.stream_chat([message])) == answer

"""`trimtab complete` and `trimtab chat`: generation in the terminal, through the server's own engine worker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, ValidationError

from server.cli.grouped_options import grouped_options
from server.cli.loading import load_with_progress
from server.cli.options import Alpha, ConfigFile, ModelOptions, console, fail, settings
from server.config import Config
from server.errors import ApiError, from_validation
from steering.specs import SteeringSpec

if TYPE_CHECKING:
    from server.intake.plan import Plan
    from server.service import Service

MaxTokens = Annotated[int | None, typer.Option(help="The most tokens to generate.")]


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """The base that answers, and the adapter that steers it."""

    use: Annotated[
        str | None,
        typer.Option("--use", help="The model to use, BASE or BASE:ADAPTER; by default the first base."),
    ] = None
    alpha: Alpha = None

    def fields(self, service: Service) -> dict[str, Any]:
        """The request fields `model` and `steering`."""
        name = self.use or next(iter(service.bases))
        base, colon, adapter = name.partition(":")
        if self.alpha is None or not colon:
            return {"model": name}
        return {"model": base, "steering": [SteeringSpec(adapter, alpha=self.alpha)]}


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How tokens are drawn."""

    temperature: Annotated[float, typer.Option(help="The sampling temperature; 0 is greedy.")] = 0.0
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer again.")] = None


@grouped_options
def complete(
    *,
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    target: TargetOptions,
    max_tokens: MaxTokens = 64,
    sampling: SamplingOptions,
    config: ConfigFile = None,
    models: ModelOptions,
) -> None:
    """Complete a text in the terminal, streaming."""
    chosen = settings(config, **asdict(models))
    fields = {"prompt": prompt, "max_tokens": max_tokens, **asdict(sampling)}

    async def work() -> None:
        async with _running(chosen) as service:
            from server.intake.planning import plan_completion
            from server.protocol.completions import CompletionRequest

            body = _validated(CompletionRequest, {**fields, **target.fields(service)})
            plan = await plan_completion(service, body)
            sys.stdout.write(prompt)
            await _stream(service, plan)

    _run(work)


@grouped_options
def chat(
    *,
    message: Annotated[
        str | None, typer.Argument(help="One message to answer; without it, a conversation.")
    ] = None,
    target: TargetOptions,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    max_tokens: MaxTokens = None,
    sampling: SamplingOptions,
    config: ConfigFile = None,
    models: ModelOptions,
) -> None:
    """Chat in the terminal, streaming. An empty line ends a conversation."""
    chosen = settings(config, **asdict(models))
    fields = {"max_tokens": max_tokens, **asdict(sampling)}

    async def work() -> None:
        async with _running(chosen) as service:
            from server.intake.planning import plan_chat
            from server.protocol.chat import ChatRequest

            messages = [] if system is None else [{"role": "system", "content": system}]
            question = message or await _ask()
            while question:
                messages.append({"role": "user", "content": question})
                body = _validated(ChatRequest, {**fields, **target.fields(service), "messages": messages})
                answer = await _stream(service, await plan_chat(service, body))
                messages.append({"role": "assistant", "content": answer})
                question = "" if message else await _ask()

    _run(work)


@asynccontextmanager
async def _running(config: Config) -> AsyncIterator[Service]:
    """The service, from loading its models to its close."""
    engines = load_with_progress(config)
    from server.service import Service

    service = Service(config, engines)
    try:
        await service.start()
        yield service
    finally:
        await service.close()


async def _stream(service: Service, plan: Plan) -> str:
    """Write the answer to stdout as it is generated, and return it."""
    from server.replies.generation import Generation

    generation = await Generation.start(plan, service.metrics)
    parts: list[str] = []
    try:
        async for delta in generation.deltas():
            sys.stdout.write(delta.text)
            sys.stdout.flush()
            parts.append(delta.text)
    finally:
        generation.close()
    sys.stdout.write("\n")
    sys.stdout.flush()
    return "".join(parts)


def _validated(model: type[BaseModel], fields: dict[str, Any]) -> Any:
    """The request body that `fields` make. Raises `ApiError` for an invalid field."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise from_validation(error) from None


def _run(work: Callable[[], Any]) -> None:
    """Run a coroutine; an API error is one line and exit status 1, an interrupt exit status 130."""
    try:
        asyncio.run(work())
    except ApiError as error:
        fail(error.message, error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _ask() -> str:
    """The next line from the terminal, read in a thread; "" at its end."""

    def read() -> str:
        try:
            return console.input("[bold]> [/]").strip()
        except EOFError:
            return ""

    return await asyncio.to_thread(read)

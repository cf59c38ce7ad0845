"""`trimtab complete` and `trimtab chat`: one-off generation in the terminal, through the server's own worker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, ValidationError

from server.cli.loading import load_with_progress
from server.cli.options import (
    Adapters,
    ConfigFile,
    Device,
    Dtype,
    MaxModelLen,
    Models,
    console,
    settings,
)
from server.config import Config
from server.errors import ApiError, from_validation

if TYPE_CHECKING:
    from server.intake.plan import Plan
    from server.service import Service

Use = Annotated[str | None, typer.Option("--use", help="Which to ask: BASE or BASE:ADAPTER; the first base.")]
Alpha = Annotated[float | None, typer.Option(help="The adapter's strength; its own.")]
MaxTokens = Annotated[int | None, typer.Option(help="The most tokens to generate.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
Seed = Annotated[int | None, typer.Option(help="For the same answer again.")]


@asynccontextmanager
async def _running(config: Config) -> AsyncIterator[Service]:
    engines = load_with_progress(config)
    from server.service import Service

    service = Service(config, engines)
    service.start()
    try:
        yield service
    finally:
        await service.close()


def _choice(service: Service, use: str | None, alpha: float | None) -> dict[str, Any]:
    """`model` and `steering` as a request has them."""
    name = use or next(iter(service.bases))
    base, colon, adapter = name.partition(":")
    if alpha is None or not colon:
        return {"model": name}
    return {"model": base, "steering": [{"adapter": adapter, "alpha": alpha}]}


async def _stream(service: Service, plan: Plan) -> str:
    """Writes the answer to stdout as it comes, and returns it."""
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
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise from_validation(error) from None


def _run(work: Callable[[], Any]) -> None:
    try:
        asyncio.run(work())
    except ApiError as error:
        console.print(f"[red]{error.message}[/]", highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def complete(
    prompt: Annotated[str, typer.Argument(help="The text to go on from.")],
    use: Use = None,
    alpha: Alpha = None,
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.0,
    seed: Seed = None,
    config: ConfigFile = None,
    model: Models = None,
    adapter: Adapters = None,
    device: Device = None,
    dtype: Dtype = None,
    max_model_len: MaxModelLen = None,
) -> None:
    """Complete a text in the terminal, streaming."""
    chosen = settings(
        config, model=model, adapter=adapter, device=device, dtype=dtype, max_model_len=max_model_len
    )
    fields = {"prompt": prompt, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}

    async def work() -> None:
        async with _running(chosen) as service:
            from server.intake.planning import plan_completion
            from server.protocol.completions import CompletionRequest

            body = _validated(CompletionRequest, {**fields, **_choice(service, use, alpha)})
            plan = await plan_completion(service, body)
            sys.stdout.write(prompt)
            await _stream(service, plan)

    _run(work)


def chat(
    message: Annotated[str | None, typer.Argument(help="One message; none: a conversation.")] = None,
    use: Use = None,
    alpha: Alpha = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = None,
    config: ConfigFile = None,
    model: Models = None,
    adapter: Adapters = None,
    device: Device = None,
    dtype: Dtype = None,
    max_model_len: MaxModelLen = None,
) -> None:
    """Chat in the terminal, streaming. An empty line ends a conversation."""
    chosen = settings(
        config, model=model, adapter=adapter, device=device, dtype=dtype, max_model_len=max_model_len
    )
    fields = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}

    async def work() -> None:
        async with _running(chosen) as service:
            from server.intake.planning import plan_chat
            from server.protocol.chat import ChatRequest

            messages = [] if system is None else [{"role": "system", "content": system}]
            question = message or await _ask()
            while question:
                messages.append({"role": "user", "content": question})
                body = _validated(
                    ChatRequest, {**fields, **_choice(service, use, alpha), "messages": messages}
                )
                answer = await _stream(service, await plan_chat(service, body))
                messages.append({"role": "assistant", "content": answer})
                question = "" if message else await _ask()

    _run(work)


async def _ask() -> str:
    def read() -> str:
        try:
            return console.input("[bold]> [/]").strip()
        except EOFError:
            return ""

    return await asyncio.to_thread(read)

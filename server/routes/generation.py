"""The path that completions and chat share, from a checked body to a reply that is whole or streamed."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from server.auth import client_of
from server.errors import ApiError
from server.intake.plan import Plan
from server.protocol.generation import GenerationFields, StreamOptions, Usage
from server.replies.disconnects import unless_disconnected
from server.replies.event_stream import DONE, EventStream, event
from server.replies.generation import Generation
from server.replies.sequence_text import Delta
from server.replies.steering_fields import steering_header
from server.service import Service, service_of
from server.telemetry.metrics import Metrics
from steering.specs import ResolvedSteering

Body = TypeVar("Body", bound=GenerationFields)
Choice = TypeVar("Choice", bound=BaseModel)


class AnswerFormat(Protocol[Choice]):
    """Writes the answers of a generation in the form of its route; one instance for each reply."""

    def whole(self, answers: Sequence[Delta], usage: Usage) -> BaseModel:
        """The reply that is not streamed."""

    def opening(self) -> Iterable[Choice]:
        """The choices of the events that come before any text."""

    def choice(self, delta: Delta) -> Choice | None:
        """An event's choice; None where the event would say nothing."""

    def chunk(self, choices: list[Choice], usage: Usage | None) -> BaseModel:
        """One event of a stream."""


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """The fields that a reply and every event of its stream have in common."""

    id: str
    created: int
    model: str
    steering: list[ResolvedSteering] | None
    system_fingerprint: str


def reply_head(prefix: str, body: GenerationFields, generation: Generation) -> ReplyHead:
    """The head of a new reply; `prefix` begins its id."""
    return ReplyHead(
        f"{prefix}-{body.request_id or uuid.uuid4().hex}",
        int(time.time()),
        body.model,
        list(generation.steering) or None,
        generation.plan.base.fingerprint,
    )


async def start_generation(
    request: Request, body: Body, sequences: int, plan: Callable[[Service, Body, str], Awaitable[Plan]]
) -> Generation:
    """Reserves places for `sequences`, makes the plan and submits it; raises `ApiError`."""
    service, client = service_of(request), client_of(request)
    service.require_open()
    await service.settle(body.model, body.steering)
    with service.base(body.model).worker.reserve(sequences, client) as reservation:
        return await Generation.start(await plan(service, body, client), service.metrics, reservation)


async def respond(
    request: Request, generation: Generation, form: AnswerFormat[Choice], body: GenerationFields
) -> Response:
    """The reply, streamed where `body` asks for it. Closes `generation` at the end and when the client disconnects."""
    headers = steering_header(generation.steering)
    if body.stream:
        events = _events(generation, form, body.stream_options, service_of(request).metrics)
        return EventStream(events, headers=headers, close=generation.close)
    try:
        answers = await unless_disconnected(request, generation.collect())
        content = form.whole(answers, generation.usage())
    finally:
        generation.close()
    return Response(content.model_dump_json(), media_type="application/json", headers=headers)


async def _events(
    generation: Generation, form: AnswerFormat[Choice], options: StreamOptions | None, metrics: Metrics
) -> AsyncGenerator[str, None]:
    every = options is not None and bool(options.continuous_usage_stats)
    at_the_end = options is not None and bool(options.include_usage)

    def write(choices: list[Choice], *, with_usage: bool) -> str:
        chunk = form.chunk(choices, generation.usage() if with_usage else None)
        # Where the request asks for token counts, events without them have `usage` as null, as OpenAI's do.
        return event(chunk.model_dump_json(exclude=None if every or at_the_end else {"usage"}))

    try:
        for choice in form.opening():
            yield write([choice], with_usage=every)
        async for delta in generation.deltas():
            added = form.choice(delta)
            if added is not None:
                yield write([added], with_usage=every)
        if at_the_end:
            yield write([], with_usage=True)
        yield DONE
    except ApiError as error:
        metrics.count_error(error.status)
        yield event(error.body())

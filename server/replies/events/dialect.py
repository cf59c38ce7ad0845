"""Replies in another form than the chat route's: one answer, whole or as named events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Protocol

from fastapi import Request, Response
from pydantic import BaseModel

from server.errors import ApiError
from server.protocol.generation import Usage
from server.replies.disconnects import unless_disconnected
from server.replies.event_stream import EventStream
from server.replies.generation import Generation
from server.replies.sequence_text import Delta
from server.replies.steering_fields import steering_header
from server.telemetry.metrics import Metrics

Event = dict[str, Any]
"""The content of an event; its `type` is its name."""


class Dialect(Protocol):
    """Writes one answer; one instance for each reply."""

    def whole(self, answer: Delta, usage: Usage) -> BaseModel:
        """The reply that is not streamed."""

    def opening(self, usage: Usage) -> Iterator[Event]:
        """The events before any text."""

    def events(self, delta: Delta) -> Iterator[Event]:
        """The events of what a step adds."""

    def closing(self, usage: Usage) -> Iterator[Event]:
        """The events after the last text."""

    def failure(self, error: ApiError) -> Event:
        """The event of an error."""


async def respond_in(
    request: Request, generation: Generation, dialect: Dialect, metrics: Metrics, *, stream: bool
) -> Response:
    """The reply, streamed where asked. Closes `generation` at the end and when the client disconnects."""
    headers = steering_header(generation.steering)
    if stream:
        events = _events(generation, dialect, metrics)
        return EventStream(events, headers=headers, close=generation.close)
    try:
        (answer,) = await unless_disconnected(request, generation.collect())
        content = dialect.whole(answer, generation.usage())
    finally:
        generation.close()
    return Response(content.model_dump_json(), media_type="application/json", headers=headers)


async def _events(generation: Generation, dialect: Dialect, metrics: Metrics) -> AsyncGenerator[str, None]:
    try:
        for event in dialect.opening(generation.usage()):
            yield _written(event)
        async for delta in generation.deltas():
            for event in dialect.events(delta):
                yield _written(event)
        for event in dialect.closing(generation.usage()):
            yield _written(event)
    except ApiError as error:
        metrics.count_error(error.status)
        yield _written(dialect.failure(error))


def _written(event: Event) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"

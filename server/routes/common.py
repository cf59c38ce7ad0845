"""What several groups of routes need."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from fastapi import Request, Response
from pydantic import BaseModel

from server.errors import ApiError
from server.protocol.common import StreamOptions
from server.replies.generation import Generation
from server.replies.streaming import EventStream, event, unless_gone
from server.replies.wire import steering_header
from server.service import Service


class Reply(Protocol):
    """An admitted request's answer, in either of its two forms."""

    async def whole(self) -> BaseModel:
        """The answer as one body."""

    def events(self) -> AsyncGenerator[str, None]:
        """The answer as server-sent events."""


async def respond(request: Request, generation: Generation, reply: Reply, *, stream: bool) -> Response:
    """Sends the answer; whatever way it ends, and if the client goes away, `generation` is closed."""
    headers = steering_header(generation.steering)
    if stream:
        return EventStream(reply.events(), headers=headers, close=generation.close)
    try:
        body = await unless_gone(request, reply.whole())
    finally:
        generation.close()
    return Response(body.model_dump_json(), media_type="application/json", headers=headers)


def wants_usage(options: StreamOptions | None, *, last: bool) -> bool:
    """Whether an event of a stream has the token counts: the last where they are asked for, or every one."""
    if options is None:
        return False
    return bool(options.continuous_usage_stats or (last and options.include_usage))


def chunk_event(chunk: BaseModel, options: StreamOptions | None) -> str:
    """One event of a stream; `usage` is in it, if only as null, where the request asks for the token counts."""
    asked = options is not None and (options.include_usage or options.continuous_usage_stats)
    return event(chunk.model_dump_json(exclude=None if asked else {"usage"}))


def ended_by(error: ApiError, service: Service) -> str:
    """The last event of a stream that an error ends."""
    service.metrics.count_error(error.status)
    return event(error.body())

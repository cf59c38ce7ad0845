"""`POST /v1/completions`."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.errors import ApiError
from server.intake.body import read_body
from server.intake.planning import plan_completion
from server.protocol.completions import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from server.replies.generation import Generation
from server.replies.sequences import Delta
from server.replies.streaming import DONE
from server.replies.tokens import PlacedToken
from server.replies.wire import completion_logprobs, steered_by, usage
from server.routes.common import chunk_event, ended_by, respond, wants_usage
from server.service import Service, service_of

router = APIRouter()


@router.post("/v1/completions")
async def create_completion(request: Request) -> Response:
    """Completes each prompt, steered as `model` or `steering` says."""
    service = service_of(request)
    body = await read_body(request, CompletionRequest, service.config.max_body_bytes)
    service.require_open()
    sequences = len(body.prompt) * (body.best_of or body.n or 1)
    with service.base(body.model).worker.reserve(sequences) as place:
        plan = await plan_completion(service, body)
        generation = await Generation.start(plan, service.metrics, place)
    return await respond(request, generation, _Reply(service, body, generation), stream=bool(body.stream))


class _Reply:
    def __init__(self, service: Service, body: CompletionRequest, generation: Generation) -> None:
        self._service = service
        self._body = body
        self._generation = generation
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    async def whole(self) -> Completion:
        choices = [
            CompletionChoice(
                index=choice.index,
                text=choice.text,
                logprobs=self._logprobs(choice.tokens),
                finish_reason=choice.finish_reason,
                stop_reason=choice.stop_reason,
            )
            for choice in await self._generation.collect()
        ]
        return self._envelope(choices, with_usage=True)

    async def events(self) -> AsyncGenerator[str, None]:
        try:
            async for delta in self._generation.deltas():
                yield self._event([self._choice(delta)])
            if self._body.stream_options is not None and self._body.stream_options.include_usage:
                yield self._event([], last=True)
            yield DONE
        except ApiError as error:
            yield ended_by(error, self._service)

    def _choice(self, delta: Delta) -> CompletionChoice:
        return CompletionChoice(
            index=delta.index,
            text=delta.text,
            logprobs=self._logprobs(delta.tokens),
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason,
        )

    def _logprobs(self, tokens: tuple[PlacedToken, ...]) -> CompletionLogprobs | None:
        if self._body.logprobs is None:
            return None
        vocabulary = self._generation.plan.base.vocabulary
        return completion_logprobs(vocabulary, tokens, details=bool(self._body.steering_details))

    def _event(self, choices: list[CompletionChoice], *, last: bool = False) -> str:
        options = self._body.stream_options
        return chunk_event(self._envelope(choices, with_usage=wants_usage(options, last=last)), options)

    def _envelope(self, choices: list[CompletionChoice], *, with_usage: bool = False) -> Completion:
        generation = self._generation
        return Completion(
            id=self._id,
            created=self._created,
            model=self._body.model,
            choices=choices,
            steering=steered_by(generation.steering),
            usage=usage(generation.prompt_tokens, generation.completion_tokens) if with_usage else None,
        )

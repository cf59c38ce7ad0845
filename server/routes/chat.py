"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.errors import ApiError
from server.intake.body import read_body
from server.intake.planning import plan_chat
from server.protocol.chat import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatRequest,
)
from server.replies.answers import AnswerReader
from server.replies.generation import Choice, Generation
from server.replies.sequences import Delta
from server.replies.streaming import DONE
from server.replies.tokens import PlacedToken
from server.replies.wire import chat_logprobs, steered_by, usage
from server.routes.common import chunk_event, ended_by, respond, wants_usage
from server.service import Service, service_of

router = APIRouter()


@router.post("/v1/chat/completions")
async def create_chat_completion(request: Request) -> Response:
    """Answers a conversation, steered as `model` or `steering` says."""
    service = service_of(request)
    body = await read_body(request, ChatRequest, service.config.max_body_bytes)
    service.require_open()
    with service.base(body.model).worker.reserve(body.n or 1) as place:
        plan = await plan_chat(service, body)
        generation = await Generation.start(plan, service.metrics, place)
    return await respond(request, generation, _Reply(service, body, generation), stream=bool(body.stream))


class _Reply:
    def __init__(self, service: Service, body: ChatRequest, generation: Generation) -> None:
        self._service = service
        self._body = body
        self._generation = generation
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    async def whole(self) -> ChatCompletion:
        choices = [self._whole_choice(choice) for choice in await self._generation.collect()]
        generation = self._generation
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._body.model,
            choices=choices,
            steering=steered_by(generation.steering),
            usage=usage(generation.prompt_tokens, generation.completion_tokens),
        )

    async def events(self) -> AsyncGenerator[str, None]:
        try:
            opening = ChatDelta(role="assistant", content="")
            for index in range(self._generation.plan.width):
                yield self._event([ChatChunkChoice(index=index, delta=opening)])
            readers = [AnswerReader(self._generation.plan.tools) for _ in range(self._generation.plan.width)]
            async for delta in self._generation.deltas():
                choice = self._choice(delta, readers[delta.index])
                if choice is not None:
                    yield self._event([choice])
            if self._body.stream_options is not None and self._body.stream_options.include_usage:
                yield self._event([], last=True)
            yield DONE
        except ApiError as error:
            yield ended_by(error, self._service)

    def _whole_choice(self, choice: Choice) -> ChatChoice:
        reader = AnswerReader(self._generation.plan.tools)
        content, calls = reader.read(choice.text, final=True)
        return ChatChoice(
            index=choice.index,
            message=AssistantMessage(
                content=None if calls and not content else content,
                tool_calls=[call.model_copy(update={"index": None}) for call in calls] or None,
            ),
            logprobs=self._logprobs(choice.tokens),
            finish_reason=reader.finish_reason(choice.finish_reason),
            stop_reason=choice.stop_reason,
        )

    def _choice(self, delta: Delta, reader: AnswerReader) -> ChatChunkChoice | None:
        """What an event says of a choice; None where all that is new is held back."""
        content, calls = reader.read(delta.text, final=delta.finish_reason is not None)
        logprobs = self._logprobs(delta.tokens) if delta.tokens else None
        if not (content or calls or logprobs or delta.finish_reason):
            return None
        return ChatChunkChoice(
            index=delta.index,
            delta=ChatDelta(content=content or None, tool_calls=calls or None),
            logprobs=logprobs,
            finish_reason=reader.finish_reason(delta.finish_reason),
            stop_reason=delta.stop_reason,
        )

    def _logprobs(self, tokens: tuple[PlacedToken, ...]) -> ChatLogprobs | None:
        if not self._body.logprobs:
            return None
        vocabulary = self._generation.plan.base.vocabulary
        return chat_logprobs(
            vocabulary, tokens, top=self._body.top_logprobs or 0, details=bool(self._body.steering_details)
        )

    def _event(self, choices: list[ChatChunkChoice], *, last: bool = False) -> str:
        generation, options = self._generation, self._body.stream_options
        with_usage = wants_usage(options, last=last)
        chunk = ChatChunk(
            id=self._id,
            created=self._created,
            model=self._body.model,
            choices=choices,
            steering=steered_by(generation.steering),
            usage=usage(generation.prompt_tokens, generation.completion_tokens) if with_usage else None,
        )
        return chunk_event(chunk, options)

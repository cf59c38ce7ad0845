"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

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
from server.protocol.generation import Usage
from server.protocol.tools import FunctionReply, ToolCallReply
from server.replies.answer_parts import Content, WholeAnswer
from server.replies.answer_reader import AnswerReader
from server.replies.call_deltas import call_deltas
from server.replies.generation import Generation
from server.replies.logprobs import chat_logprobs
from server.replies.sequence_text import Delta, PlacedToken
from server.routes.generation import reply_head, respond, start_generation
from server.service import service_of

router = APIRouter()


@router.post("/v1/chat/completions")
async def create_chat_completion(request: Request) -> Response:
    """Answers a conversation, steered as `model` or `steering` says."""
    service = service_of(request)
    body = await read_body(request, ChatRequest, service.config)
    generation = await start_generation(request, body, body.n or 1, plan_chat)
    return await respond(request, generation, _ChatFormat(body, generation), body)


class _ChatFormat:
    """The `AnswerFormat` of this route: messages, with the function calls read out of their text."""

    def __init__(self, body: ChatRequest, generation: Generation) -> None:
        self._body = body
        self._vocabulary = generation.plan.base.vocabulary
        self._head = reply_head("chatcmpl", body, generation)
        self._readers = [AnswerReader(generation.plan.tools) for _ in range(generation.plan.width)]

    def whole(self, answers: Sequence[Delta], usage: Usage) -> ChatCompletion:
        head = self._head
        return ChatCompletion(
            id=head.id,
            created=head.created,
            model=head.model,
            choices=[self._whole_choice(answer) for answer in answers],
            steering=head.steering,
            usage=usage,
        )

    def opening(self) -> Iterator[ChatChunkChoice]:
        for index in range(len(self._readers)):
            yield ChatChunkChoice(index=index, delta=ChatDelta(role="assistant", content=""))

    def choice(self, delta: Delta) -> ChatChunkChoice | None:
        reader = self._readers[delta.index]
        parts = reader.read(delta.text, final=delta.finish_reason is not None)
        content = "".join(part.text for part in parts if isinstance(part, Content))
        calls = call_deltas(parts)
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

    def chunk(self, choices: list[ChatChunkChoice], usage: Usage | None) -> ChatChunk:
        head = self._head
        return ChatChunk(
            id=head.id,
            created=head.created,
            model=head.model,
            choices=choices,
            steering=head.steering,
            usage=usage,
        )

    def _whole_choice(self, answer: Delta) -> ChatChoice:
        reader = self._readers[answer.index]
        said = WholeAnswer.of(reader.read(answer.text, final=True))
        return ChatChoice(
            index=answer.index,
            message=AssistantMessage(
                # A call that was cut off before its name is no call, and no content either.
                content=said.content or (None if said.calls or reader.demands_calls else ""),
                tool_calls=[
                    ToolCallReply(
                        id=call.id, function=FunctionReply(name=call.name, arguments=call.arguments)
                    )
                    for call in said.calls
                ]
                or None,
            ),
            logprobs=self._logprobs(answer.tokens),
            finish_reason=reader.finish_reason(answer.finish_reason),
            stop_reason=answer.stop_reason,
        )

    def _logprobs(self, tokens: Sequence[PlacedToken]) -> ChatLogprobs | None:
        if not self._body.logprobs:
            return None
        return chat_logprobs(
            self._vocabulary,
            tokens,
            top=self._body.top_logprobs or 0,
            details=bool(self._body.steering_details),
        )

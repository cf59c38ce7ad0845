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
from server.replies.answer_parts import Content, Reasoning, WholeAnswer
from server.replies.answer_reader import AnswerReader
from server.replies.call_deltas import call_deltas
from server.replies.generation import Generation
from server.replies.logprobs import chat_logprobs, prompt_entries
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
        self._opening = generation.plan.opening
        self._prompt, self._prompt_told = generation.plan.prompts[0], False
        self._readers = [
            AnswerReader(generation.plan.tools, generation.plan.thinking)
            for _ in range(generation.plan.width)
        ]

    def whole(self, answers: Sequence[Delta], usage: Usage) -> ChatCompletion:
        head = self._head
        return ChatCompletion(
            id=head.id,
            created=head.created,
            model=head.model,
            choices=[self._whole_choice(answer) for answer in answers],
            prompt_logprobs=prompt_entries(
                self._vocabulary, answers[0].prompt_logprobs, self._body.prompt_logprobs
            ),
            steering=head.steering,
            system_fingerprint=head.system_fingerprint,
            usage=usage,
            prompt_token_ids=self._prompt_ids(),
        )

    def opening(self) -> Iterator[ChatChunkChoice]:
        for index in range(len(self._readers)):
            yield ChatChunkChoice(index=index, delta=ChatDelta(role="assistant", content=self._opening))

    def choice(self, delta: Delta) -> ChatChunkChoice | None:
        reader = self._readers[delta.index]
        parts = reader.read(delta.text, final=delta.finish_reason is not None)
        content = "".join(part.text for part in parts if isinstance(part, Content))
        thoughts = "".join(part.text for part in parts if isinstance(part, Reasoning))
        calls = call_deltas(parts)
        logprobs = self._logprobs(delta.tokens) if delta.tokens else None
        wanted = self._body.return_token_ids and delta.tokens
        if not (content or thoughts or calls or logprobs or wanted or delta.finish_reason):
            return None
        return ChatChunkChoice(
            index=delta.index,
            delta=ChatDelta(
                content=content or None,
                reasoning_content=thoughts or None,
                tool_calls=None if self._body.functions else calls or None,
                function_call=calls[0].function if self._body.functions and calls else None,
            ),
            logprobs=logprobs,
            finish_reason=self._finish(reader.finish_reason(delta.finish_reason)),
            stop_reason=delta.stop_reason,
            token_ids=self._token_ids(delta),
        )

    def chunk(self, choices: list[ChatChunkChoice], usage: Usage | None) -> ChatChunk:
        head = self._head
        return ChatChunk(
            id=head.id,
            created=head.created,
            model=head.model,
            choices=choices,
            steering=head.steering,
            system_fingerprint=head.system_fingerprint,
            usage=usage,
            prompt_token_ids=self._prompt_ids(),
        )

    def _whole_choice(self, answer: Delta) -> ChatChoice:
        reader = self._readers[answer.index]
        return ChatChoice(
            index=answer.index,
            message=self._message(reader, WholeAnswer.of(reader.read(answer.text, final=True))),
            logprobs=self._logprobs(answer.tokens),
            finish_reason=self._finish(reader.finish_reason(answer.finish_reason)),
            stop_reason=answer.stop_reason,
            token_ids=self._token_ids(answer),
        )

    def _message(self, reader: AnswerReader, said: WholeAnswer) -> AssistantMessage:
        calls = [
            ToolCallReply(id=call.id, function=FunctionReply(name=call.name, arguments=call.arguments))
            for call in said.calls
        ]
        # A call that was cut off before its name is no call, and no content either.
        empty = None if calls or said.reasoning or reader.demands_calls else ""
        old = bool(self._body.functions)
        return AssistantMessage(
            content=self._opening + said.content or empty,
            reasoning_content=said.reasoning or None,
            tool_calls=None if old else calls or None,
            function_call=calls[0].function if old and calls else None,
        )

    def _finish(self, reason: str | None) -> str | None:
        return "function_call" if reason == "tool_calls" and self._body.functions else reason

    def _prompt_ids(self) -> list[int] | None:
        """The prompt's ids, once for each reply, where they are asked for."""
        wanted = bool(self._body.return_token_ids) and not self._prompt_told
        self._prompt_told = True
        return list(self._prompt.ids) if wanted else None

    def _token_ids(self, delta: Delta) -> list[int] | None:
        return delta.token_ids if self._body.return_token_ids else None

    def _logprobs(self, tokens: Sequence[PlacedToken]) -> ChatLogprobs | None:
        if not self._body.wants_logprobs:
            return None
        return chat_logprobs(
            self._vocabulary,
            tokens,
            top=self._body.asked_top,
            details=bool(self._body.steering_details),
            as_ids=bool(self._body.return_tokens_as_token_ids),
        )

"""The reply of `/v1/responses`, whole and as events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

from server.errors import ApiError
from server.protocol.generation import Usage
from server.protocol.responses.reply import (
    Incomplete,
    InputDetails,
    OutputDetails,
    ResponseReply,
    ResponseUsage,
)
from server.protocol.responses.request import ResponsesRequest
from server.replies.answer_reader import AnswerReader
from server.replies.events.blocks import Block, BlockEvent, Blocks
from server.replies.events.dialect import Event
from server.replies.generation import Generation
from server.replies.sequence_text import Delta

_PREFIXES = {"text": "msg", "thoughts": "rs", "call": "fc"}


class ResponsesDialect:
    """Writes one answer in the form of OpenAI's Responses."""

    def __init__(self, body: ResponsesRequest, generation: Generation) -> None:
        self._body = body
        self._name = uuid.uuid4().hex
        self._created = int(time.time())
        self._steering = list(generation.steering) or None
        self._reader = AnswerReader(generation.plan.tools, generation.plan.thinking)
        self._blocks = Blocks()
        self._cut = False
        self._number = 0

    def whole(self, answer: Delta, usage: Usage) -> ResponseReply:
        """The response."""
        list(self._blocks.add(self._reader.read(answer.text, final=True)))
        self._cut = answer.finish_reason == "length"
        return self._response(usage, ended=True)

    def opening(self, usage: Usage) -> Iterator[Event]:
        """The empty response."""
        response = self._response(None, ended=False).model_dump()
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)

    def events(self, delta: Delta) -> Iterator[Event]:
        """What the items gain."""
        final = delta.finish_reason is not None
        self._cut = delta.finish_reason == "length"
        for event in self._blocks.add(self._reader.read(delta.text, final=final)):
            yield from self._of_block(event)

    def closing(self, usage: Usage) -> Iterator[Event]:
        """The end of the last item, and the whole response."""
        for event in self._blocks.end():
            yield from self._of_block(event, cut=self._cut)
        response = self._response(usage, ended=True).model_dump()
        yield self._event(f"response.{response['status']}", response=response)

    def failure(self, error: ApiError) -> Event:
        """An error."""
        return self._event("error", code=str(error.status), message=error.message, param=error.param)

    def _event(self, kind: str, /, **fields: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}

    def _item_id(self, block: Block) -> str:
        return f"{_PREFIXES[block.kind]}_{self._name}{block.index}"

    def _item(self, block: Block, status: str) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self._item_id(block), "status": status}
        if block.kind == "call":
            call = {"type": "function_call", "call_id": block.id, "name": block.name}
            return {**item, **call, "arguments": block.text}
        content = [_part(block)] if block.text else []
        if block.kind == "thoughts":
            return {**item, "type": "reasoning", "summary": [], "content": content}
        return {**item, "type": "message", "role": "assistant", "content": content}

    def _of_block(self, event: BlockEvent, *, cut: bool = False) -> Iterator[Event]:
        block = event.block
        place: dict[str, Any] = {"output_index": block.index}
        inside = {**place, "item_id": self._item_id(block)}
        within = inside if block.kind == "call" else {**inside, "content_index": 0}
        kind = {"text": "output_text", "thoughts": "reasoning_text", "call": "function_call_arguments"}[
            block.kind
        ]
        if event.what == "begin":
            item = self._item(block, "in_progress")
            yield self._event("response.output_item.added", **place, item=item)
            if block.kind != "call":
                yield self._event("response.content_part.added", **within, part=_part(block))
        elif event.what == "text":
            more: dict[str, Any] = {"logprobs": []} if block.kind == "text" else {}
            yield self._event(f"response.{kind}.delta", **within, delta=event.text, **more)
        else:
            if block.kind == "call":
                done = {"name": block.name, "arguments": block.text}
                yield self._event(f"response.{kind}.done", **within, **done)
            else:
                more = {"logprobs": []} if block.kind == "text" else {}
                yield self._event(f"response.{kind}.done", **within, text=block.text, **more)
                yield self._event("response.content_part.done", **within, part=_part(block))
            item = self._item(block, "incomplete" if cut else "completed")
            yield self._event("response.output_item.done", **place, item=item)

    def _response(self, usage: Usage | None, *, ended: bool) -> ResponseReply:
        body, last = self._body, len(self._blocks.all) - 1
        return ResponseReply(
            id=f"resp_{self._name}",
            created_at=self._created,
            status=("incomplete" if self._cut else "completed") if ended else "in_progress",
            incomplete_details=Incomplete() if ended and self._cut else None,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            metadata=body.metadata or {},
            model=body.model,
            output=[
                self._item(block, "incomplete" if self._cut and block.index == last else "completed")
                for block in self._blocks.all
            ],
            parallel_tool_calls=body.parallel_tool_calls is not False,
            reasoning=_given(body.reasoning) or {"effort": None, "summary": None},
            temperature=1.0 if body.temperature is None else body.temperature,
            text=_given(body.text) or {"format": {"type": "text"}},
            tool_choice=_given(body.tool_choice) or "auto",
            tools=[tool.model_dump(exclude={"defer_loading"}) for tool in body.tools or ()],
            top_p=1.0 if body.top_p is None else body.top_p,
            usage=None if usage is None else _usage(usage),
            steering=self._steering,
        )


def _given(value: Any) -> Any:
    """A part of the request as the client wrote it."""
    return value.model_dump(by_alias=True, exclude_unset=True) if hasattr(value, "model_dump") else value


def _part(block: Block) -> dict[str, Any]:
    if block.kind == "thoughts":
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputDetails(cached_tokens=usage.prompt_tokens_details.cached_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(),
        total_tokens=usage.total_tokens,
    )

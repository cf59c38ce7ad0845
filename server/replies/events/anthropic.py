"""The reply of `/v1/messages`, whole and as events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any, Literal

from server.errors import ApiError
from server.protocol.anthropic.reply import AnthropicReply, AnthropicUsage
from server.protocol.generation import Usage
from server.replies.answer_reader import AnswerReader
from server.replies.events.blocks import Block, BlockEvent, Blocks, Kind
from server.replies.events.dialect import Event
from server.replies.generation import Generation
from server.replies.sequence_text import Delta

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class AnthropicDialect:
    """Writes one answer in Anthropic's form."""

    def __init__(self, model: str, generation: Generation) -> None:
        self._model = model
        self._id = f"msg_{uuid.uuid4().hex}"
        self._steering = list(generation.steering) or None
        self._reader = AnswerReader(generation.plan.tools, generation.plan.thinking)
        self._blocks = Blocks()
        self._last: Delta | None = None

    def whole(self, answer: Delta, usage: Usage) -> AnthropicReply:
        """The message."""
        list(self._blocks.add(self._reader.read(answer.text, final=True)))
        content = [block for each in self._blocks.all if (block := _whole_block(each)) is not None]
        return self._message(content, self._stop_reason(answer), answer.stop_reason, usage)

    def opening(self, usage: Usage) -> Iterator[Event]:
        """The empty message."""
        yield {"type": "message_start", "message": self._message([], None, None, usage).model_dump()}
        yield {"type": "ping"}

    def events(self, delta: Delta) -> Iterator[Event]:
        """What the blocks gain."""
        self._last = delta
        final = delta.finish_reason is not None
        for event in self._blocks.add(self._reader.read(delta.text, final=final)):
            yield _event(event)

    def closing(self, usage: Usage) -> Iterator[Event]:
        """The end of the last block and of the message."""
        for event in self._blocks.end():
            yield _event(event)
        last = self._last
        reason = None if last is None else self._stop_reason(last)
        stop = None if last is None else last.stop_reason
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": stop},
            "usage": _usage(usage).model_dump(),
        }
        yield {"type": "message_stop"}

    def failure(self, error: ApiError) -> Event:
        """An error."""
        return {"type": "error", **error.body()}

    def _message(
        self, content: list[dict[str, Any]], reason: StopReason | None, stop: str | None, usage: Usage
    ) -> AnthropicReply:
        return AnthropicReply(
            id=self._id,
            model=self._model,
            content=content,
            stop_reason=reason,
            stop_sequence=stop,
            usage=_usage(usage),
            steering=self._steering,
        )

    def _stop_reason(self, answer: Delta) -> StopReason:
        if answer.stop_reason is not None:
            return "stop_sequence"
        if answer.finish_reason == "length":
            return "max_tokens"
        return "tool_use" if any(block.kind == "call" for block in self._blocks.all) else "end_turn"


def _usage(usage: Usage) -> AnthropicUsage:
    cached = usage.prompt_tokens_details.cached_tokens
    return AnthropicUsage(
        input_tokens=usage.prompt_tokens - cached,
        cache_read_input_tokens=cached,
        output_tokens=usage.completion_tokens,
    )


def _whole_block(block: Block) -> dict[str, Any] | None:
    """A block in a whole message; None for a call that was cut off, which has no input yet."""
    if block.kind == "text":
        return {"type": "text", "text": block.text}
    if block.kind == "thoughts":
        return {"type": "thinking", "thinking": block.text, "signature": ""}
    try:
        arguments = json.loads(block.text)
    except ValueError:
        return None
    return {"type": "tool_use", "id": block.id, "name": block.name, "input": arguments}


def _event(event: BlockEvent) -> Event:
    block = event.block
    if event.what == "end":
        return {"type": "content_block_stop", "index": block.index}
    if event.what == "begin":
        begun: dict[Kind, dict[str, Any]] = {
            "text": {"type": "text", "text": ""},
            "thoughts": {"type": "thinking", "thinking": "", "signature": ""},
            "call": {"type": "tool_use", "id": block.id, "name": block.name, "input": {}},
        }
        return {"type": "content_block_start", "index": block.index, "content_block": begun[block.kind]}
    name, key = {
        "text": ("text_delta", "text"),
        "thoughts": ("thinking_delta", "thinking"),
        "call": ("input_json_delta", "partial_json"),
    }[block.kind]
    return {"type": "content_block_delta", "index": block.index, "delta": {"type": name, key: event.text}}

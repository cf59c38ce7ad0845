"""The replies of `POST /v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

from typing import Any, Literal

from server.protocol.objects import ReplyObject
from steering.specs import ResolvedSteering


class AnthropicUsage(ReplyObject):
    """The token counts of one request."""

    input_tokens: int
    """tokens of the prompt that were not in the prefix cache"""
    cache_creation_input_tokens: int = 0
    """always 0: the prefix cache needs no writing"""
    cache_read_input_tokens: int
    """tokens of the prompt that were in the prefix cache"""
    output_tokens: int
    """generated tokens"""


class AnthropicReply(ReplyObject):
    """The message that answers."""

    id: str
    """the message's id"""
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    """`model` of the request"""
    content: list[dict[str, Any]]
    """blocks: `thinking`, `text` and `tool_use`"""
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"] | None
    """why the answer ended"""
    stop_sequence: str | None
    """the stop sequence that ended the answer, if one did"""
    usage: AnthropicUsage
    """the token counts"""
    steering: list[ResolvedSteering] | None
    """the adapters that steered the reply; null if there are none"""


class AnthropicEvent(ReplyObject):
    """One event of a stream: `message_start`, `content_block_start`, `content_block_delta`, `content_block_stop`,
    `message_delta`, `message_stop`, `ping` or `error`."""

    type: str
    """the event's name"""


class TokenCount(ReplyObject):
    """The tokens of a conversation."""

    input_tokens: int
    """how many tokens the prompt has"""

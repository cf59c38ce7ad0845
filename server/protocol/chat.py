"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from server.protocol.common import (
    MAX_LOGPROBS,
    GenerationFields,
    Reply,
    SteeredBy,
    SteeringDetail,
    Usage,
    Wire,
    absent,
)


def _content_text(value: object) -> object:
    """A message's text: a string, or text parts joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        parts: list[str] = []
        for part in value:
            if not isinstance(part, dict) or set(part) != {"type", "text"} or part["type"] != "text":
                raise ValueError('only parts of the form {"type": "text", "text": ...} are served')
            if not isinstance(part["text"], str):
                raise ValueError("the text of a part must be a string")
            parts.append(part["text"])
        return "".join(parts)
    raise ValueError("a string or a list of text parts is expected")


class Message(Wire):
    """One turn of the conversation. `developer` is `system` by its newer name."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content_text)]
    name: str | None = Field(None, max_length=256)


class ChatRequest(GenerationFields):
    """`max_tokens` or `max_completion_tokens`; neither: as many as the context holds."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    tools: list[Any] | None = None


class TopLogprob(Reply):
    """One of the likeliest tokens at a position. `bytes` is null for an id that stands for none."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenEntry(TopLogprob):
    """A generated token."""

    top_logprobs: list[TopLogprob]
    steering_details: SteeringDetail | None = Field(default=None, exclude_if=absent)


class ChatLogprobs(Reply):
    """One entry a token."""

    content: list[TokenEntry]
    refusal: None = None


class AssistantMessage(Reply):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Reply):
    """One whole answer."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | None = None


class ChatCompletion(Reply):
    """The reply that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    steering: list[SteeredBy] | None = None
    usage: Usage


class ChatDelta(Reply):
    """What an event adds; the role comes with the first."""

    role: Literal["assistant"] | None = Field(default=None, exclude_if=absent)
    content: str | None = Field(default=None, exclude_if=absent)


class ChatChunkChoice(Reply):
    """One choice of an event."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | None = None


class ChatChunk(Reply):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    steering: list[SteeredBy] | None = None
    usage: Usage | None = Field(default=None, exclude_if=absent)

"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

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
from server.protocol.tools import MAX_TOOLS, NamedTool, Tool, ToolCall, ToolCallReply


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


class TextPart(Wire):
    """One part of a message."""

    type: Literal["text"]
    text: str
    """the part's text; parts are joined"""


ContentField = Annotated[
    str,
    BeforeValidator(
        _content_text,
        json_schema_input_type=str | Annotated[list[TextPart], Field(min_length=1)],
    ),
]


class Message(Wire):
    """One turn of the conversation. `developer` is `system` by its newer name."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """who speaks; `developer` is `system` by its newer name"""
    content: ContentField | None = None
    """Needed but in an assistant's turn that has `tool_calls`."""
    name: str | None = Field(None, max_length=256)
    """who speaks, by name; templates that know names of tools see it"""
    tool_calls: list[ToolCall] | None = Field(None, max_length=MAX_TOOLS)
    """The calls of an assistant's turn."""
    tool_call_id: str | None = Field(None, max_length=256)
    """The call that a tool's turn answers."""
    # An assistant's turn as clients send it back: what our replies never fill.
    refusal: None = None
    """as clients send replies back; null"""
    annotations: list[None] | None = Field(None, max_length=0)
    """as clients send replies back; empty"""
    audio: None = None
    """as clients send replies back; null"""
    function_call: None = None
    """as clients send replies back; null"""

    @model_validator(mode="after")
    def _as_its_role_wants(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError("`tool_calls` belong to an assistant's turn")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("`tool_call_id` is needed in a tool's turn, and in no other")
        if self.content is None and not self.tool_calls:
            raise ValueError("`content` is needed: a string or a list of text parts")
        return self


class ChatRequest(GenerationFields):
    """`max_tokens` or `max_completion_tokens`; neither: as many as the context holds."""

    messages: list[Message] = Field(min_length=1)
    """the conversation, oldest turn first"""
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31)
    """`max_tokens` by its newer name; not both"""
    logprobs: bool | None = None
    """tell each token's logprob"""
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    """and those of so many likeliest tokens; needs `logprobs`"""
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    """functions that the model may call; the base's chat template must know them"""
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    """`auto`, the default, lets the model choose; `required` demands a call, a function's name one of that function."""
    parallel_tool_calls: bool | None = None
    """False: one call at most is demanded and read. Without `tools` it means nothing."""
    modalities: list[Literal["text"]] | None = Field(None, max_length=1)
    """Only text is served, whether or not it is asked for."""
    reasoning_effort: str | None = Field(None, max_length=64)
    """Nothing here depends on this field or the one below."""
    verbosity: str | None = Field(None, max_length=64)
    """taken, and without effect"""


class TopLogprob(Reply):
    """One of the likeliest tokens at a position. `bytes` is null for an id that stands for none."""

    token: str
    """the token as text"""
    logprob: float
    """its logprob"""
    bytes: list[int] | None
    """its bytes"""


class TokenEntry(TopLogprob):
    """A generated token."""

    top_logprobs: list[TopLogprob]
    """the likeliest tokens at this place"""
    steering_details: SteeringDetail | None = Field(default=None, exclude_if=absent)
    """with `steering_details`"""


class ChatLogprobs(Reply):
    """One entry a token."""

    content: list[TokenEntry]
    """one entry a token"""
    refusal: None = None
    """always null"""


class AssistantMessage(Reply):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    """always the assistant"""
    content: str | None
    """Null where the answer is calls alone."""
    refusal: None = None
    """always null"""
    tool_calls: list[ToolCallReply] | None = Field(default=None, exclude_if=absent)
    """the functions that the model calls"""


class ChatChoice(Reply):
    """One whole answer."""

    index: int
    """which answer"""
    message: AssistantMessage
    """the answer"""
    logprobs: ChatLogprobs | None = None
    """with `logprobs`"""
    finish_reason: str | None = None
    """`stop`, `length` or `tool_calls`"""
    stop_reason: str | None = None
    """the stop string that ended it, if one did"""


class ChatCompletion(Reply):
    """The reply that is not streamed."""

    id: str
    """of this reply"""
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """seconds since 1970"""
    model: str
    """as asked for"""
    choices: list[ChatChoice]
    """the answers"""
    steering: list[SteeredBy] | None = None
    """what steered them, null for nothing"""
    usage: Usage
    """token counts"""


class ChatDelta(Reply):
    """What an event adds; the role comes with the first."""

    role: Literal["assistant"] | None = Field(default=None, exclude_if=absent)
    """in the first event of an answer"""
    content: str | None = Field(default=None, exclude_if=absent)
    """text to add"""
    tool_calls: list[ToolCallReply] | None = Field(default=None, exclude_if=absent)
    """calls, or more of their arguments"""


class ChatChunkChoice(Reply):
    """One choice of an event."""

    index: int
    """which answer"""
    delta: ChatDelta
    """what the event adds"""
    logprobs: ChatLogprobs | None = None
    """with `logprobs`"""
    finish_reason: str | None = None
    """in the last event of an answer: `stop`, `length` or `tool_calls`"""
    stop_reason: str | None = None
    """the stop string that ended it, if one did"""


class ChatChunk(Reply):
    """One event of a stream."""

    id: str
    """of this reply, the same in every event"""
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    """seconds since 1970"""
    model: str
    """as asked for"""
    choices: list[ChatChunkChoice]
    """what is added, of one answer an event; empty in the last event that has only `usage`"""
    steering: list[SteeredBy] | None = None
    """what steers them, null for nothing"""
    usage: Usage | None = None
    """Left out where the request does not ask for it; null but in the last event where it does."""

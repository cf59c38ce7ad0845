"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from server.protocol.generation import MAX_LOGPROBS, GenerationFields, Usage
from server.protocol.numbers import WHOLE
from server.protocol.objects import ReplyObject, RequestObject, absent
from server.protocol.steering import SteeringDetail
from server.protocol.tools import MAX_TOOLS, Tool, ToolCall, ToolCallDelta, ToolCallReply, ToolChoice
from steering.specs import ResolvedSteering


def _content_text(value: object) -> object:
    """The content of a message as one string: text parts are joined."""
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


class TextPart(RequestObject):
    """One part of a message's content."""

    type: Literal["text"]
    text: str
    """the part's text; the texts of all parts are joined"""


ContentField = Annotated[
    str,
    BeforeValidator(
        _content_text,
        json_schema_input_type=str | Annotated[list[TextPart], Field(min_length=1)],
    ),
]


class Message(RequestObject):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """whose turn it is; `developer` is the newer name of `system`"""
    content: ContentField | None = None
    """the text; only an assistant's turn with `tool_calls` may do without"""
    name: str | None = Field(None, max_length=256)
    """in a tool's turn the function's name, which some templates show; elsewhere ignored"""
    tool_calls: list[ToolCall] | None = Field(None, max_length=MAX_TOOLS)
    """the calls that an assistant's turn made"""
    tool_call_id: str | None = Field(None, max_length=256)
    """the id of the call that a tool's turn answers"""
    # Clients send an assistant's message back with the fields that replies leave empty.
    refusal: None = None
    """null, as in replies"""
    annotations: list[None] | None = Field(None, max_length=0)
    """empty, as in replies"""
    audio: None = None
    """null, as in replies"""
    function_call: None = None
    """null, as in replies"""

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
    """A conversation to answer."""

    messages: list[Message] = Field(min_length=1)
    """the conversation, oldest turn first"""
    max_completion_tokens: Annotated[int, Field(ge=-1, le=2**31), WHOLE] | None = None
    """the newer name of `max_tokens`; where both are given, they must be equal"""
    logprobs: bool | None = None
    """return each token's logprob"""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = None
    """return the logprobs of this many likeliest tokens too; more than 0 needs `logprobs`"""
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    """functions that the model may call; the base's chat template must support them"""
    tool_choice: ToolChoice = None
    """`auto` lets the model choose, `none` hides the tools, `required` demands a call, an object demands a call of one
    function or allows some functions only. Arguments satisfy their schema under each. Default: `auto`"""
    parallel_tool_calls: bool | None = None
    """false: at most one call in an answer. Default: `true`"""
    modalities: list[Literal["text"]] | None = Field(None, max_length=1)
    """accepted and ignored: every answer is text"""
    reasoning_effort: str | None = Field(None, max_length=64)
    """accepted and ignored"""
    verbosity: str | None = Field(None, max_length=64)
    """accepted and ignored"""


class TopLogprob(ReplyObject):
    """One of the likeliest tokens at a place."""

    token: str
    """the token as text"""
    logprob: float
    """the token's logprob"""
    bytes: list[int] | None
    """the token's bytes; null for an id that has none"""


class TokenEntry(TopLogprob):
    """One generated token."""

    top_logprobs: list[TopLogprob]
    """the likeliest tokens at the same place"""
    steering_details: SteeringDetail | None = Field(default=None, exclude_if=absent)
    """the token's steering, with `steering_details`"""


class ChatLogprobs(ReplyObject):
    """The logprobs of an answer, or of the part that an event adds."""

    content: list[TokenEntry]
    """one entry for each token"""
    refusal: None = None
    """always null"""


class AssistantMessage(ReplyObject):
    """The message that answers."""

    role: Literal["assistant"] = "assistant"
    """always `assistant`"""
    content: str | None
    """the text; null where the answer only calls functions"""
    refusal: None = None
    """always null"""
    tool_calls: list[ToolCallReply] | None = Field(default=None, exclude_if=absent)
    """the calls that the model makes"""


class ChatChoice(ReplyObject):
    """One answer."""

    index: int
    """the answer's number, from 0"""
    message: AssistantMessage
    """the message"""
    logprobs: ChatLogprobs | None = None
    """the tokens' logprobs, with `logprobs`"""
    finish_reason: str | None = None
    """`stop`, `length` or `tool_calls`"""
    stop_reason: str | None = None
    """the stop string that ended the answer, if one did"""


class ChatCompletion(ReplyObject):
    """The reply that is not streamed."""

    id: str
    """the reply's id"""
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """when the reply was begun, in seconds since 1970"""
    model: str
    """`model` of the request"""
    choices: list[ChatChoice]
    """the answers"""
    steering: list[ResolvedSteering] | None = None
    """the adapters that steered the reply; null if there are none"""
    usage: Usage
    """the token counts"""


class ChatDelta(ReplyObject):
    """The part of an answer that one event adds."""

    role: Literal["assistant"] | None = Field(default=None, exclude_if=absent)
    """`assistant` in the first event of an answer"""
    content: str | None = Field(default=None, exclude_if=absent)
    """the text to add"""
    tool_calls: list[ToolCallDelta] | None = Field(default=None, exclude_if=absent)
    """what the calls gain: a call's id and name come first, then its arguments as they are written"""


class ChatChunkChoice(ReplyObject):
    """The answer that an event adds to."""

    index: int
    """the answer's number, from 0"""
    delta: ChatDelta
    """the part to add"""
    logprobs: ChatLogprobs | None = None
    """the tokens' logprobs, with `logprobs`"""
    finish_reason: str | None = None
    """`stop`, `length` or `tool_calls`; null in events before the answer's last"""
    stop_reason: str | None = None
    """the stop string that ended the answer, if one did"""


class ChatChunk(ReplyObject):
    """One event of a stream."""

    id: str
    """the reply's id, the same in every event"""
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    """when the reply was begun, in seconds since 1970"""
    model: str
    """`model` of the request"""
    choices: list[ChatChunkChoice]
    """one answer; none in the event with the token counts"""
    steering: list[ResolvedSteering] | None = None
    """the adapters that steer the reply; null if there are none"""
    usage: Usage | None = None
    """the token counts, where `stream_options` asks for them"""

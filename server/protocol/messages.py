"""The messages of a conversation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from server.protocol.objects import RequestObject
from server.protocol.tools import MAX_TOOLS, CalledFunction, ToolCall


def _content_text(value: object) -> object:
    """The content of a message as one string: text parts are joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        parts: list[str] = []
        for part in value:
            known = isinstance(part, dict) and {"type", "text"} <= set(part) <= {
                "type",
                "text",
                "cache_control",
            }
            if not known or part["type"] != "text":
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
    cache_control: dict[str, Any] | None = None
    """accepted and ignored"""


ContentField = Annotated[
    str,
    BeforeValidator(
        _content_text,
        json_schema_input_type=str | Annotated[list[TextPart], Field(min_length=1)],
    ),
]


class Message(RequestObject):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    """whose turn it is; `developer` is the newer name of `system`, `function` the older one of `tool`"""
    content: ContentField | None = None
    """the text; only an assistant's turn with calls may do without"""
    name: str | None = Field(None, max_length=256)
    """the author's or the function's name, for templates that show it"""
    reasoning_content: str | None = None
    """the thoughts of an assistant's turn, for templates that show them"""
    reasoning: str | None = None
    """another name of `reasoning_content`"""
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
    function_call: CalledFunction | None = None
    """the call that an assistant's turn made, in the older form"""
    id: str | None = Field(None, max_length=256)
    """accepted and ignored, like the fields below"""
    status: str | None = Field(None, max_length=64)
    """accepted and ignored"""
    provider_specific_fields: dict[str, Any] | None = None
    """accepted and ignored"""

    @model_validator(mode="after")
    def _as_its_role_wants(self) -> Message:
        for name in ("tool_calls", "function_call", "reasoning_content", "reasoning"):
            if getattr(self, name) and self.role != "assistant":
                raise ValueError(f"`{name}` belongs to an assistant's turn")
        if self.role == "function" and self.name is None:
            raise ValueError("`name` is needed in a function's turn")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("`tool_call_id` is needed in a tool's turn, and in no other")
        if self.content is None and not self.tool_calls and not self.function_call:
            raise ValueError("`content` is needed: a string or a list of text parts")
        return self

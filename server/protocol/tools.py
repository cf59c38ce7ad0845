"""Functions that a client offers to the model, and calls of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from server.protocol.objects import CLIENT_NAME, ReplyObject, RequestObject, absent

MAX_TOOLS = 128


class FunctionSpec(RequestObject):
    """A function: its name, its purpose, and the JSON schema of its arguments."""

    name: str = Field(pattern=CLIENT_NAME)
    """the function's name"""
    description: str | None = Field(None, max_length=10_000)
    """the function's purpose, for the model to read"""
    parameters: dict[str, Any] | None = None
    """the JSON schema of the arguments. Default: no arguments"""
    strict: bool | None = None
    """true: a keyword that cannot be enforced is a 400; calls satisfy the rest of the schema either way"""


class Tool(RequestObject):
    """A tool that the model may use; only functions are supported."""

    type: Literal["function"]
    function: FunctionSpec
    """the function"""


class NamedFunction(RequestObject):
    """The name of a function."""

    name: str = Field(max_length=64)
    """the name of a function in `tools`"""


class NamedTool(RequestObject):
    """`tool_choice` as an object: the model must call this function."""

    type: Literal["function"]
    function: NamedFunction
    """the function to call"""


class AllowedList(RequestObject):
    """Some of the functions in `tools`."""

    mode: Literal["auto", "required"]
    """`auto` lets the model choose, `required` demands a call"""
    tools: list[NamedTool] = Field(min_length=1, max_length=MAX_TOOLS)
    """the functions that may be called; the model sees all of `tools`"""


class AllowedTools(RequestObject):
    """`tool_choice` as an object: only these functions may be called."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedList
    """the functions"""


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedTools | None
"""The field `tool_choice`."""


class CalledFunction(RequestObject):
    """The function and the arguments of a past call."""

    name: str = Field(max_length=64)
    """the function's name"""
    arguments: str
    """the arguments: JSON text of an object"""


class ToolCall(RequestObject):
    """A past call, in a message of the assistant."""

    id: str = Field(max_length=256)
    """the call's id; `tool_call_id` of the tool's message repeats it"""
    type: Literal["function"] = "function"
    function: CalledFunction
    """the function that was called"""


class FunctionReply(ReplyObject):
    """The function and the arguments of a call that the model makes."""

    name: str
    """the function's name"""
    arguments: str
    """the arguments: JSON text of an object"""


class ToolCallReply(ReplyObject):
    """One call in an answer."""

    id: str
    """the call's id"""
    type: Literal["function"] = "function"
    function: FunctionReply
    """the function to call"""


class FunctionDelta(ReplyObject):
    """The part of a call's function that an event adds."""

    name: str | None = Field(default=None, exclude_if=absent)
    """the function's name, in the first event of the call"""
    arguments: str
    """the text to add to the arguments"""


class ToolCallDelta(ReplyObject):
    """The part of a call that an event adds."""

    index: int
    """the call's place in the answer, from 0"""
    id: str | None = Field(default=None, exclude_if=absent)
    """the call's id, in its first event"""
    type: Literal["function"] | None = Field(default=None, exclude_if=absent)
    """`function`, in its first event"""
    function: FunctionDelta
    """the function's name, and the text that its arguments gain"""

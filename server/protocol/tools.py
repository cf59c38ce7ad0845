"""Functions that a client offers, and the calls of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from server.protocol.common import FUNCTION_NAME, Reply, Wire, absent

MAX_TOOLS = 128


class FunctionSpec(Wire):
    """A function: its name, what it is for, and the JSON Schema of its arguments."""

    name: str = Field(pattern=FUNCTION_NAME)
    """what the model calls it"""
    description: str | None = Field(None, max_length=10_000)
    """what it does, for the model"""
    parameters: dict[str, Any] | None = None
    """No schema: a function without arguments."""
    strict: bool | None = None
    """A demanded call's arguments always satisfy the schema; with this, keywords that cannot be enforced are a 400."""


class Tool(Wire):
    """What a model may use; only functions."""

    type: Literal["function"]
    function: FunctionSpec
    """the function"""


class NamedFunction(Wire):
    """A function by its name."""

    name: str = Field(max_length=64)
    """one of the names in `tools`"""


class NamedTool(Wire):
    """`tool_choice` as an object: this function must be called."""

    type: Literal["function"]
    function: NamedFunction
    """the function to call"""


class CalledFunction(Wire):
    """A call in the conversation so far; `arguments` is JSON text."""

    name: str = Field(max_length=64)
    """the function"""
    arguments: str
    """its arguments, as JSON text of an object"""


class ToolCall(Wire):
    """One call of an assistant's turn."""

    id: str = Field(max_length=256)
    """of the call; the turn of the tool answers it"""
    type: Literal["function"] = "function"
    function: CalledFunction
    """what was called"""


class FunctionReply(Reply):
    """A call that the model made; `arguments` is JSON text."""

    name: str
    """the function, in the first event of a call"""
    arguments: str
    """its arguments, as JSON text; in a stream what is added to it"""


class ToolCallReply(Reply):
    """One call of the answer; `index` only in a stream."""

    index: int | None = Field(default=None, exclude_if=absent)
    """which call of the answer, in a stream"""
    id: str
    """of the call; in a stream in its first event"""
    type: Literal["function"] = "function"
    function: FunctionReply
    """what is called"""

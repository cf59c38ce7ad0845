"""`POST /v1/messages` and `/v1/messages/count_tokens`: a conversation in Anthropic's form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from server.protocol.numbers import WHOLE
from server.protocol.objects import CLIENT_NAME, RequestObject
from server.protocol.steering import SteeringField
from server.protocol.tools import MAX_TOOLS

CacheControl = dict[str, Any] | None


class TextBlock(RequestObject):
    """Text."""

    type: Literal["text"]
    text: str
    """the text"""
    cache_control: CacheControl = None
    """accepted and ignored: prefixes are always shared"""
    citations: list[Any] | None = None
    """accepted and ignored"""


class ThinkingBlock(RequestObject):
    """Thoughts of a past turn of the assistant's."""

    type: Literal["thinking"]
    thinking: str
    """the thoughts, for chat templates that show them"""
    signature: str | None = None
    """accepted and ignored"""


class RedactedThinkingBlock(RequestObject):
    """Thoughts that cannot be read; ignored."""

    type: Literal["redacted_thinking"]
    data: str
    """accepted and ignored"""


class ToolUseBlock(RequestObject):
    """A past call of a tool."""

    type: Literal["tool_use"]
    id: str = Field(max_length=256)
    """the call's id; `tool_use_id` of its result repeats it"""
    name: str = Field(max_length=64)
    """the tool's name"""
    input: dict[str, Any]
    """the arguments"""
    cache_control: CacheControl = None
    """accepted and ignored"""
    caller: dict[str, Any] | None = None
    """accepted and ignored"""


class ToolResultBlock(RequestObject):
    """The result of a call."""

    type: Literal["tool_result"]
    tool_use_id: str = Field(max_length=256)
    """the id of the call"""
    content: str | list[TextBlock] | None = None
    """the result"""
    is_error: bool | None = None
    """accepted and ignored: the content says so"""
    cache_control: CacheControl = None
    """accepted and ignored"""


Block = Annotated[
    TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock,
    Field(discriminator="type"),
]


class AnthropicMessage(RequestObject):
    """One turn of the conversation."""

    role: Literal["user", "assistant"]
    """whose turn it is"""
    content: str | list[Block]
    """the text, or blocks of text, calls and their results"""


class AnthropicTool(RequestObject):
    """A tool that the model may call."""

    type: Literal["custom"] | None = None
    """`custom`, or nothing"""
    name: str = Field(pattern=CLIENT_NAME)
    """the tool's name"""
    description: str | None = Field(None, max_length=100_000)
    """the tool's purpose, for the model to read"""
    input_schema: dict[str, Any]
    """the JSON schema of the arguments"""
    strict: bool | None = None
    """true: a keyword that cannot be enforced is a 400"""
    cache_control: CacheControl = None
    """accepted and ignored"""


class AnthropicToolChoice(RequestObject):
    """Whether and which tool must be called."""

    type: Literal["auto", "any", "tool", "none"]
    """`auto` lets the model choose, `any` demands a call, `tool` one of the tool `name`, `none` hides the tools"""
    name: str | None = Field(None, max_length=64)
    """the tool, with the type `tool`"""
    disable_parallel_tool_use: bool | None = None
    """true: at most one call in an answer"""


class Thinking(RequestObject):
    """Whether the model thinks first."""

    type: Literal["enabled", "disabled", "adaptive"]
    """for chat templates that read `enable_thinking`; else ignored"""
    budget_tokens: Annotated[int, Field(ge=0, le=2**31), WHOLE] | None = None
    """accepted and ignored"""
    display: str | None = Field(None, max_length=64)
    """accepted and ignored"""


class OutputFormat(RequestObject):
    """The form of the answer."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")
    """the JSON schema that the answer satisfies"""


class OutputConfig(RequestObject):
    """The form of the answer, and the effort."""

    format: OutputFormat | None = None
    """the form that the answer must have"""
    effort: str | None = Field(None, max_length=64)
    """for chat templates that read `reasoning_effort`; else ignored"""


class Metadata(RequestObject):
    """Who asks; ignored."""

    user_id: str | None = Field(None, max_length=1024)
    """accepted and ignored"""


class CountTokensRequest(RequestObject):
    """A conversation whose tokens are counted."""

    model: str
    """`BASE`, or `BASE:ADAPTER` for an adapter at its own alpha"""
    messages: list[AnthropicMessage] = Field(min_length=1)
    """the conversation, oldest turn first; where the last turn is the assistant's, the answer goes on with it"""
    system: str | list[TextBlock] | None = None
    """what comes before the conversation"""
    tools: list[AnthropicTool] | None = Field(None, max_length=MAX_TOOLS)
    """functions that the model may call; the base's chat template must support them"""
    tool_choice: AnthropicToolChoice | None = None
    """whether and which tool must be called"""
    thinking: Thinking | None = None
    """whether the model thinks first"""
    output_config: OutputConfig | None = None
    """the form of the answer, and the effort"""
    cache_control: CacheControl = None
    """accepted and ignored: prefixes are always shared"""


class MessagesRequest(CountTokensRequest):
    """A conversation to answer."""

    max_tokens: Annotated[int, Field(ge=1, le=2**31), WHOLE]
    """the most tokens of the answer, cut to what the context holds"""
    steering: SteeringField | None = None
    """an adapter's name, an object, or a list of either. Not where `model` names an adapter"""
    stop_sequences: list[str] | None = Field(None, max_length=256)
    """the answer ends before the first of these strings that occurs"""
    stream: bool | None = None
    """reply with server-sent events while the tokens are generated"""
    temperature: float | None = Field(None, ge=0, le=2)
    """divides the scores before a token is sampled; 0 takes the likeliest. Default: 1"""
    top_p: float | None = Field(None, ge=0, le=1)
    """sample from the likeliest tokens that together have this probability. Default: 1, all"""
    top_k: Annotated[int, Field(ge=-1, le=2**31), WHOLE] | None = None
    """sample from this many likeliest tokens. Default: 0, all"""
    metadata: Metadata | None = None
    """accepted and ignored"""
    service_tier: str | None = Field(None, max_length=64)
    """accepted and ignored"""

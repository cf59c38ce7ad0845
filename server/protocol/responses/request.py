"""`POST /v1/responses`: OpenAI's newer form of chat."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from server.protocol.extras import MAX_LOGPROBS
from server.protocol.numbers import WHOLE
from server.protocol.objects import CLIENT_NAME, RequestObject
from server.protocol.steering import SteeringField
from server.protocol.tools import MAX_TOOLS

Id = Annotated[str, Field(max_length=256)]


class ResponseText(RequestObject):
    """Text in an item."""

    type: Literal["input_text", "output_text", "text", "refusal"]
    """whose text it is"""
    text: str = ""
    """the text"""
    refusal: str | None = None
    """accepted and ignored"""
    annotations: list[Any] | None = None
    """accepted and ignored"""
    logprobs: list[Any] | None = None
    """accepted and ignored"""


class MessageItem(RequestObject):
    """One turn of the conversation."""

    type: Literal["message"] | None = None
    """`message`, or nothing"""
    role: Literal["system", "developer", "user", "assistant"]
    """whose turn it is"""
    content: str | list[ResponseText]
    """the text"""
    id: Id | None = None
    """accepted and ignored"""
    status: Id | None = None
    """accepted and ignored"""
    phase: Id | None = None
    """accepted and ignored"""


class CallItem(RequestObject):
    """A past call of a function."""

    type: Literal["function_call"]
    call_id: Id
    """the call's id; the item with its output repeats it"""
    name: str = Field(max_length=64)
    """the function's name"""
    arguments: str
    """the arguments: JSON text of an object"""
    id: Id | None = None
    """accepted and ignored"""
    status: Id | None = None
    """accepted and ignored"""
    namespace: Id | None = None
    """accepted and ignored"""


class CallOutputItem(RequestObject):
    """The output of a call."""

    type: Literal["function_call_output"]
    call_id: Id
    """the id of the call"""
    output: str | list[ResponseText]
    """the output"""
    id: Id | None = None
    """accepted and ignored"""
    status: Id | None = None
    """accepted and ignored"""


class SummaryText(RequestObject):
    """Text of thoughts."""

    type: Literal["summary_text", "reasoning_text"]
    """which text it is"""
    text: str
    """the text"""


class ReasoningItem(RequestObject):
    """Thoughts before a past turn of the assistant's."""

    type: Literal["reasoning"]
    summary: list[SummaryText] = Field(default_factory=list)
    """a summary of the thoughts"""
    content: list[SummaryText] | None = None
    """the thoughts, for chat templates that show them"""
    id: Id | None = None
    """accepted and ignored"""
    status: Id | None = None
    """accepted and ignored"""
    encrypted_content: str | None = None
    """accepted and ignored"""


def _kind(item: object) -> str:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return kind if isinstance(kind, str) else "message"


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[CallOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_kind),
]


class ResponseTool(RequestObject):
    """A function that the model may call."""

    type: Literal["function"]
    name: str = Field(pattern=CLIENT_NAME)
    """the function's name"""
    description: str | None = Field(None, max_length=10_000)
    """the function's purpose, for the model to read"""
    parameters: dict[str, Any] | None = None
    """the JSON schema of the arguments. Default: no arguments"""
    strict: bool | None = None
    """true: a keyword that cannot be enforced is a 400"""
    defer_loading: bool | None = None
    """accepted and ignored"""


class FunctionName(RequestObject):
    """One function."""

    type: Literal["function"]
    name: str = Field(max_length=64)
    """the function's name"""


class AllowedFunctions(RequestObject):
    """Some of the functions in `tools`."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    """`auto` lets the model choose, `required` demands a call"""
    tools: list[FunctionName] = Field(min_length=1, max_length=MAX_TOOLS)
    """the functions that may be called"""


class TextFormat(RequestObject):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    """plain text, any JSON object, or JSON that satisfies `schema`"""
    name: str | None = Field(None, max_length=64, pattern=CLIENT_NAME)
    """the schema's name"""
    description: str | None = Field(None, max_length=10_000)
    """accepted and ignored"""
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    """the JSON schema, with the type `json_schema`"""
    strict: bool | None = None
    """true: a keyword that cannot be enforced is a 400"""


class TextOptions(RequestObject):
    """The form of the answer."""

    format: TextFormat | None = None
    """the form that the answer must have"""
    verbosity: str | None = Field(None, max_length=64)
    """accepted and ignored"""


class ReasoningOptions(RequestObject):
    """How the model thinks."""

    effort: str | None = Field(None, max_length=64)
    """for chat templates that read `reasoning_effort`; else ignored"""
    summary: str | None = Field(None, max_length=64)
    """accepted and ignored"""
    generate_summary: str | None = Field(None, max_length=64)
    """accepted and ignored"""


class ResponseStreamOptions(RequestObject):
    """Further contents of the events."""

    include_obfuscation: bool | None = None
    """accepted and ignored: nothing is added to hide the lengths of texts"""


class ResponsesRequest(RequestObject):
    """A conversation to answer. Nothing is stored: each request has the whole conversation."""

    model: str
    """`BASE`, or `BASE:ADAPTER` for an adapter at its own alpha"""
    input: str | Annotated[list[Item], Field(min_length=1)]
    """the conversation: a text, or items of text, calls and their outputs"""
    steering: SteeringField | None = None
    """an adapter's name, an object, or a list of either. Not where `model` names an adapter"""
    instructions: str | None = None
    """what comes before the conversation"""
    max_output_tokens: Annotated[int, Field(ge=1, le=2**31), WHOLE] | None = None
    """the most tokens of the answer, cut to what the context holds. Default: all that it holds"""
    temperature: float | None = Field(None, ge=0, le=2)
    """divides the scores before a token is sampled; 0 takes the likeliest. Default: 1"""
    top_p: float | None = Field(None, ge=0, le=1)
    """sample from the likeliest tokens that together have this probability. Default: 1, all"""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = None
    """0 or null: logprobs are not returned in this form; other numbers are refused"""
    stream: bool | None = None
    """reply with server-sent events while the tokens are generated"""
    stream_options: ResponseStreamOptions | None = None
    """further contents of the events"""
    text: TextOptions | None = None
    """the form of the answer"""
    reasoning: ReasoningOptions | None = None
    """how the model thinks"""
    tools: list[ResponseTool] | None = Field(None, max_length=MAX_TOOLS)
    """functions that the model may call; the base's chat template must support them"""
    tool_choice: Literal["none", "auto", "required"] | FunctionName | AllowedFunctions | None = None
    """`auto` lets the model choose, `none` hides the tools, `required` demands a call, an object demands a call of one
    function or allows some functions only. Default: `auto`"""
    parallel_tool_calls: bool | None = None
    """false: at most one call in an answer. Default: `true`"""
    previous_response_id: str | None = Field(None, max_length=256)
    """refused: nothing is stored, so `input` must have the whole conversation"""
    conversation: None = None
    """null: nothing is stored"""
    prompt: None = None
    """null: there are no stored prompts"""
    background: Literal[False] | None = None
    """false: every answer is made at once"""
    store: bool | None = None
    """accepted; nothing is stored"""
    truncation: Literal["auto", "disabled"] | None = None
    """accepted; a conversation that is too long is refused"""
    include: list[Literal["reasoning.encrypted_content"]] | None = Field(None, max_length=1)
    """accepted and ignored"""
    max_tool_calls: Annotated[int, Field(ge=1, le=2**31), WHOLE] | None = None
    """accepted and ignored: there are no tools of the server's own"""
    metadata: dict[str, str] | None = Field(None, max_length=16)
    """given back in the reply"""
    user: str | None = Field(None, max_length=1024)
    """accepted and ignored, like the fields below"""
    safety_identifier: str | None = Field(None, max_length=1024)
    """accepted and ignored"""
    prompt_cache_key: str | None = Field(None, max_length=1024)
    """accepted and ignored"""
    prompt_cache_retention: str | None = Field(None, max_length=64)
    """accepted and ignored"""
    service_tier: str | None = Field(None, max_length=64)
    """accepted and ignored"""

"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from server.protocol.completions import PromptEntry
from server.protocol.extras import MAX_LOGPROBS
from server.protocol.generation import GenerationFields, Usage
from server.protocol.messages import Message
from server.protocol.numbers import WHOLE
from server.protocol.objects import ReplyObject, absent
from server.protocol.steering import SteeringDetail
from server.protocol.tools import (
    MAX_TOOLS,
    FunctionDelta,
    FunctionReply,
    FunctionSpec,
    NamedFunction,
    NamedTool,
    Tool,
    ToolCallDelta,
    ToolCallReply,
    ToolChoice,
)
from steering.specs import ResolvedSteering

LogprobsField = bool | Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE]
TemplateValue = bool | int | float | Annotated[str, Field(max_length=1000)] | None


class ChatRequest(GenerationFields):
    """A conversation to answer."""

    messages: list[Message] = Field(min_length=1)
    """the conversation, oldest turn first"""
    max_completion_tokens: Annotated[int, Field(ge=-1, le=2**31), WHOLE] | None = None
    """the newer name of `max_tokens`; where both are given, they must be equal"""
    logprobs: LogprobsField | None = None
    """return each token's logprob; a number is `true` with as many `top_logprobs`"""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = None
    """return the logprobs of this many likeliest tokens too; more than 0 needs `logprobs`"""
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    """functions that the model may call; the base's chat template must support them"""
    tool_choice: ToolChoice = None
    """`auto` lets the model choose, `none` hides the tools, `required` demands a call, an object demands a call of one
    function or allows some functions only. Arguments satisfy their schema under each. Default: `auto`"""
    parallel_tool_calls: bool | None = None
    """false: at most one call in an answer. Default: `true`"""
    functions: list[FunctionSpec] | None = Field(None, min_length=1, max_length=MAX_TOOLS)
    """`tools` in the older form: at most one call, which the reply has as `function_call`"""
    function_call: Literal["none", "auto"] | NamedFunction | None = None
    """`tool_choice` in the older form, for `functions`"""
    add_generation_prompt: bool | None = None
    """end the prompt with the beginning of the assistant's turn. Default: `true`, unless `continue_final_message`"""
    continue_final_message: bool | None = None
    """go on with the last message, which stays open"""
    echo: bool | None = None
    """begin the answer with the last message, where that is an assistant's"""
    chat_template_kwargs: dict[Annotated[str, Field(max_length=64)], TemplateValue] | None = Field(
        None, max_length=16
    )
    """values for what the base's chat template reads, as `enable_thinking`; any other key is refused"""
    documents: list[dict[str, JsonValue]] | None = Field(None, max_length=128)
    """documents for chat templates that show them"""
    modalities: list[Literal["text"]] | None = Field(None, max_length=1)
    """accepted and ignored: every answer is text"""
    reasoning_effort: str | None = Field(None, max_length=64)
    """for chat templates that read it; else accepted and ignored"""
    verbosity: str | None = Field(None, max_length=64)
    """accepted and ignored"""

    @property
    def offered(self) -> list[Tool]:
        """The tools, in whichever form they came."""
        return self.tools or [Tool(type="function", function=function) for function in self.functions or ()]

    @property
    def choice(self) -> ToolChoice:
        """The choice of tools, in whichever form it came."""
        old = self.function_call
        if isinstance(old, NamedFunction):
            return self.tool_choice or NamedTool(type="function", function=old)
        return self.tool_choice or old

    @property
    def wants_logprobs(self) -> bool:
        """Whether each token's logprob is asked for; 0 asks for it, without further tokens."""
        return self.logprobs is not None and self.logprobs is not False

    @property
    def asked_top(self) -> int:
        """How many likeliest tokens each entry has."""
        count = self.logprobs if isinstance(self.logprobs, int) and not isinstance(self.logprobs, bool) else 0
        return self.top_logprobs or count


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
    reasoning_content: str | None = Field(default=None, exclude_if=absent)
    """the thoughts before the text, where the server has `--reasoning-parser`"""
    function_call: FunctionReply | None = Field(default=None, exclude_if=absent)
    """the call that the model makes, for `functions`"""
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
    """`stop`, `length`, `tool_calls` or `function_call`"""
    stop_reason: str | None = None
    """the stop string that ended the answer, if one did"""
    token_ids: list[int] | None = Field(default=None, exclude_if=absent)
    """the answer's token ids, or those that the event adds, with `return_token_ids`"""


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
    system_fingerprint: str
    """changes where the version, the base's vocabulary or the device changes"""
    steering: list[ResolvedSteering] | None = None
    """the adapters that steered the reply; null if there are none"""
    usage: Usage
    """the token counts"""
    prompt_token_ids: list[int] | None = Field(default=None, exclude_if=absent)
    """the prompt's token ids, with `return_token_ids`"""
    prompt_logprobs: list[PromptEntry | None] | None = Field(default=None, exclude_if=absent)
    """for each token of the prompt, the logprobs by token id, with `prompt_logprobs`; null for the first"""


class ChatDelta(ReplyObject):
    """The part of an answer that one event adds."""

    role: Literal["assistant"] | None = Field(default=None, exclude_if=absent)
    """`assistant` in the first event of an answer"""
    content: str | None = Field(default=None, exclude_if=absent)
    """the text to add"""
    reasoning_content: str | None = Field(default=None, exclude_if=absent)
    """the thoughts to add"""
    function_call: FunctionDelta | None = Field(default=None, exclude_if=absent)
    """what the call gains, for `functions`"""
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
    """`stop`, `length`, `tool_calls` or `function_call`; null in events before the answer's last"""
    stop_reason: str | None = None
    """the stop string that ended the answer, if one did"""
    token_ids: list[int] | None = Field(default=None, exclude_if=absent)
    """the answer's token ids, or those that the event adds, with `return_token_ids`"""


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
    system_fingerprint: str
    """changes where the version, the base's vocabulary or the device changes"""
    steering: list[ResolvedSteering] | None = None
    """the adapters that steer the reply; null if there are none"""
    usage: Usage | None = None
    """the token counts, where `stream_options` asks for them"""
    prompt_token_ids: list[int] | None = Field(default=None, exclude_if=absent)
    """the prompt's token ids, with `return_token_ids`; in the first event"""

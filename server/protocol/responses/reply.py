"""The reply of `POST /v1/responses`."""

from __future__ import annotations

from typing import Any, Literal

from server.protocol.objects import ReplyObject
from steering.specs import ResolvedSteering


class InputDetails(ReplyObject):
    """Where the prompt's tokens came from."""

    cached_tokens: int
    """tokens whose keys and values were in the prefix cache"""
    cache_write_tokens: int = 0
    """always 0: the prefix cache needs no writing"""


class OutputDetails(ReplyObject):
    """What the generated tokens are."""

    reasoning_tokens: int = 0
    """always 0: thoughts are not counted apart"""


class ResponseUsage(ReplyObject):
    """The token counts of one request."""

    input_tokens: int
    """tokens of the prompt"""
    input_tokens_details: InputDetails
    """where they came from"""
    output_tokens: int
    """generated tokens"""
    output_tokens_details: OutputDetails
    """what they are"""
    total_tokens: int
    """the sum of both"""


class Incomplete(ReplyObject):
    """Why an answer is not complete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"
    """the answer has reached `max_output_tokens`, or the context's end"""


class ResponseReply(ReplyObject):
    """The answer."""

    id: str
    """the response's id"""
    object: Literal["response"] = "response"
    created_at: int
    """when the reply was begun, in seconds since 1970"""
    status: Literal["in_progress", "completed", "incomplete"]
    """`incomplete` where the answer was cut off"""
    error: None = None
    """always null: a request that fails has an error instead"""
    incomplete_details: Incomplete | None
    """why the answer is not complete; null where it is"""
    instructions: str | None
    """`instructions` of the request"""
    max_output_tokens: int | None
    """`max_output_tokens` of the request"""
    metadata: dict[str, str]
    """`metadata` of the request"""
    model: str
    """`model` of the request"""
    output: list[dict[str, Any]]
    """items: `reasoning`, `message` and `function_call`"""
    parallel_tool_calls: bool
    """whether an answer may have several calls"""
    previous_response_id: None = None
    """always null"""
    reasoning: dict[str, Any]
    """`reasoning` of the request"""
    store: Literal[False] = False
    """always false: nothing is stored"""
    temperature: float
    """the temperature"""
    text: dict[str, Any]
    """`text` of the request"""
    tool_choice: Any
    """`tool_choice` of the request"""
    tools: list[dict[str, Any]]
    """`tools` of the request"""
    top_p: float
    """the share of probability that was sampled from"""
    truncation: Literal["disabled"] = "disabled"
    """always `disabled`"""
    usage: ResponseUsage | None
    """the token counts; null while the answer is made"""
    steering: list[ResolvedSteering] | None
    """the adapters that steered the reply; null if there are none"""


class ResponseEvent(ReplyObject):
    """One event of a stream, as OpenAI has them: `response.created`, `response.output_text.delta` and others."""

    type: str
    """the event's name"""
    sequence_number: int
    """the event's place in the stream, from 0"""

"""A request in the form of OpenAI's Responses as a chat request."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from server.errors import bad_request, from_validation
from server.protocol.chat import ChatRequest
from server.protocol.responses.request import (
    AllowedFunctions,
    CallItem,
    CallOutputItem,
    FunctionName,
    Item,
    MessageItem,
    ResponsesRequest,
    ResponseText,
)


def chat_from_responses(body: ResponsesRequest) -> ChatRequest:
    """The chat request that means the same; raises a 400."""
    if body.previous_response_id is not None:
        raise bad_request(
            "Nothing is stored here: send the whole conversation in `input`, without `previous_response_id`.",
            "previous_response_id",
        )
    if body.top_logprobs:
        raise bad_request("Logprobs are not returned in this form; use /v1/chat/completions.", "top_logprobs")
    messages: list[dict[str, Any]] = []
    if body.instructions:
        messages.append({"role": "system", "content": body.instructions})
    items: list[Any] = body.input if isinstance(body.input, list) else []
    messages += _turns(items) if items else [{"role": "user", "content": body.input}]
    same = ("model", "steering", "temperature", "top_p", "stream", "parallel_tool_calls")
    fields: dict[str, Any] = {name: getattr(body, name) for name in same}
    fields |= {"messages": messages, "max_tokens": body.max_output_tokens, "tool_choice": _choice(body)}
    fields["reasoning_effort"] = None if body.reasoning is None else body.reasoning.effort
    fields["response_format"] = _format(body)
    if body.tools:
        functions = [tool.model_dump(exclude={"type", "defer_loading"}) for tool in body.tools]
        fields["tools"] = [{"type": "function", "function": function} for function in functions]
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        wrong = from_validation(error)
        wrong.param = {"messages": "input", "max_tokens": "max_output_tokens", "response_format": "text"}.get(
            wrong.param or "", wrong.param
        )
        raise wrong from None


def _turns(items: list[Item]) -> list[dict[str, Any]]:
    """The turns of the conversation: calls and thoughts belong to the assistant's turn beside them."""
    turns: list[dict[str, Any]] = []
    thoughts = ""
    for item in items:
        if isinstance(item, MessageItem):
            turns.append({"role": item.role, "content": _text(item.content)})
        elif isinstance(item, CallOutputItem):
            turns.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
        elif isinstance(item, CallItem):
            if not turns or turns[-1]["role"] != "assistant" or thoughts:
                turns.append({"role": "assistant", "content": ""})
            function = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            turns[-1].setdefault("tool_calls", []).append(call)
        else:
            thoughts += "".join(part.text for part in item.content or item.summary)
            continue
        if thoughts and turns[-1]["role"] == "assistant":
            turns[-1]["reasoning_content"] = thoughts
        thoughts = ""
    return turns


def _choice(body: ResponsesRequest) -> Any:
    choice = body.tool_choice
    if isinstance(choice, FunctionName):
        return {"type": "function", "function": {"name": choice.name}}
    if isinstance(choice, AllowedFunctions):
        tools = [{"type": "function", "function": {"name": tool.name}} for tool in choice.tools]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}
    return choice


def _format(body: ResponsesRequest) -> dict[str, Any] | None:
    wanted = None if body.text is None else body.text.format
    if wanted is None or wanted.type != "json_schema":
        return None if wanted is None else {"type": wanted.type}
    named = {"name": wanted.name or "answer", "schema": wanted.schema_, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": named}


def _text(content: str | list[ResponseText]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)

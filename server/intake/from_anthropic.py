"""A request in Anthropic's form as a chat request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from server.errors import from_validation
from server.intake.chat_options import reads
from server.protocol.anthropic.request import (
    AnthropicMessage,
    AnthropicToolChoice,
    CountTokensRequest,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from server.protocol.chat import ChatRequest
from server.served_base import ServedBase


def chat_from_anthropic(base: ServedBase, body: CountTokensRequest) -> ChatRequest:
    """The chat request that means the same; raises a 400."""
    messages = [turn for message in body.messages for turn in _turns(message)]
    if body.system:
        messages.insert(0, {"role": "system", "content": _text(body.system)})
    fields: dict[str, Any] = {"model": body.model, "messages": messages, **_tool_fields(body)}
    if messages and messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls"):
        fields["continue_final_message"] = True
    if body.thinking is not None and reads(base, "enable_thinking"):
        fields["chat_template_kwargs"] = {"enable_thinking": body.thinking.type != "disabled"}
    if body.output_config is not None:
        fields["reasoning_effort"] = body.output_config.effort
        if (wanted := body.output_config.format) is not None:
            fields["response_format"] = {"type": "json_schema", "schema": wanted.schema_}
    if isinstance(body, MessagesRequest):
        same = ("max_tokens", "steering", "stream", "temperature", "top_p", "top_k")
        fields |= {name: getattr(body, name) for name in same}
        fields["stop"] = body.stop_sequences
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise from_validation(error) from None


def _turns(message: AnthropicMessage) -> Iterator[dict[str, Any]]:
    """The turns of a message: the results of calls are turns of their own, and come first."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
        return
    texts, calls, thoughts = [], [], []
    for block in message.content:
        if isinstance(block, ToolResultBlock):
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _text(block.content or "")}
        elif isinstance(block, ToolUseBlock):
            function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
            calls.append({"id": block.id, "type": "function", "function": function})
        elif isinstance(block, ThinkingBlock):
            thoughts.append(block.thinking)
        elif isinstance(block, TextBlock):
            texts.append(block.text)
    if texts or calls or not message.content:
        turn: dict[str, Any] = {"role": message.role, "content": "".join(texts)}
        if calls:
            turn["tool_calls"] = calls
        if thoughts:
            turn["reasoning_content"] = "".join(thoughts)
        yield turn


def _tool_fields(body: CountTokensRequest) -> dict[str, Any]:
    if not body.tools and body.tool_choice is None:
        return {}
    choice = body.tool_choice or AnthropicToolChoice.model_validate({"type": "auto"})
    names: dict[str, Any] = {"auto": "auto", "any": "required", "none": "none"}
    return {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.input_schema,
                    "strict": tool.strict,
                },
            }
            for tool in body.tools or ()
        ],
        "tool_choice": names.get(choice.type)
        or {"type": "function", "function": {"name": choice.name or ""}},
        "parallel_tool_calls": not choice.disable_parallel_tool_use,
    }


def _text(content: str | list[TextBlock]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)

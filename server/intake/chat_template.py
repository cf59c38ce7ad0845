"""Renders conversations through a base's own chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import TemplateError

from server.errors import bad_request, echo
from server.intake.json_depth import MAX_DEPTH, is_too_deep
from server.protocol.messages import Message
from server.protocol.tools import Tool, ToolCall
from server.served_base import ServedBase

_END = "\U0010fffd"
"""Marks the end of the last message, which is to be continued: no ordinary text contains this character."""


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """How a conversation is rendered, and the further values that the template is `shown`."""

    add_generation_prompt: bool = True
    continue_final: bool = False
    shown: Mapping[str, Any] = field(default_factory=dict)


def template_text(base: ServedBase) -> str:
    """The source of the base's chat template; of all of them where it has several. Raises a 400 where it has none."""
    template = getattr(base.tokenizer, "chat_template", None)
    if not template:
        raise bad_request(f"The base {base.name!r} has no chat template; use /v1/completions.", "model")
    return "\n".join(template.values()) if isinstance(template, dict) else str(template)


def render(
    base: ServedBase, turns: Sequence[dict[str, Any]], tools: Sequence[Tool], options: TemplateOptions
) -> str:
    """The conversation as text; raises a 400.

    Raises one too where the template ignores `tools`, documents or the calls in `turns`: the model would not see them.
    """
    if options.continue_final:
        turns = [*turns[:-1], {**turns[-1], "content": str(turns[-1]["content"]) + _END}]
    text = _apply(base, turns, tools, options)
    if tools and text == _apply(base, turns, (), options):
        raise bad_request(f"The chat template of {base.name!r} does not know `tools`.", "tools")
    if options.shown.get("documents"):
        without = {name: value for name, value in options.shown.items() if name != "documents"}
        if text == _apply(base, turns, tools, replace(options, shown=without)):
            raise bad_request(f"The chat template of {base.name!r} does not know `documents`.", "documents")
    if any("tool_calls" in turn for turn in turns):
        plain = [{key: value for key, value in turn.items() if key != "tool_calls"} for turn in turns]
        if text == _apply(base, plain, tools, options):
            raise bad_request(f"The chat template of {base.name!r} does not know `tool_calls`.", "messages")
    if options.continue_final:
        text, found, _ = text.rpartition(_END)
        if not found:
            raise bad_request("The chat template does not show the last message.", "continue_final_message")
    return text


def template_turn(message: Message) -> dict[str, Any]:
    """A message as chat templates take it; raises a 400 for a past call whose arguments are no object of JSON."""
    turn: dict[str, Any] = {
        "role": {"developer": "system", "function": "tool"}.get(message.role, message.role),
        "content": message.content or "",
    }
    calls = list(message.tool_calls or ())
    if message.function_call is not None:
        calls.append(ToolCall(id="call_0", function=message.function_call))
    if calls:
        turn["tool_calls"] = [_past_call(call) for call in calls]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        turn["name"] = message.name
    if thoughts := message.reasoning_content or message.reasoning:
        turn["reasoning_content"] = thoughts
    return turn


def _apply(
    base: ServedBase, turns: Sequence[dict[str, Any]], tools: Sequence[Tool], options: TemplateOptions
) -> str:
    template_text(base)
    # Only passed where there are any, because not every tokenizer's method takes the argument.
    offered = {"tools": [tool.model_dump(exclude_none=True) for tool in tools]} if tools else {}
    try:
        text = base.tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=options.add_generation_prompt,
            **offered,
            **options.shown,
        )
    except (TemplateError, TypeError, ValueError) as error:
        if tools:
            # Refuses the messages where they are at fault.
            _apply(base, turns, (), options)
            hint = "" if all(tool.function.description for tool in tools) else " It may need a `description`."
            raise bad_request(
                f"The chat template refuses these tools: {echo(error)}.{hint}", "tools"
            ) from None
        raise bad_request(f"The chat template refuses these messages: {echo(error)}", "messages") from None
    return str(text)


def _past_call(call: ToolCall) -> dict[str, Any]:
    # The body's depth was checked when it was read, but this is JSON inside one of its strings.
    if is_too_deep(call.function.arguments.encode("utf-8", "replace")):
        raise bad_request(
            f"The arguments of the call {echo(repr(call.id))} are nested more deeply than the limit of "
            f"{MAX_DEPTH} levels.",
            "messages",
        )
    # Templates take the arguments as an object, since each writes them in its own way.
    try:
        arguments = json.loads(call.function.arguments)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise bad_request(
            f"The arguments of the call {echo(repr(call.id))} are not JSON text of an object.", "messages"
        )
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}

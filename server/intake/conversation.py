"""Text and conversations as a base's token ids, through its own tokenizer and chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from server.errors import bad_request, echo
from server.intake.specials import SpecialsMask
from server.protocol.chat import Message
from server.protocol.tools import Tool, ToolCall
from server.served_base import ServedBase


def encode_text(base: ServedBase, text: str, *, special: bool = True) -> list[int]:
    """Text as the base's token ids, with the special tokens that its tokenizer adds where `special`.

    A special token that stands in the text is text: only a chat template, or a client that sends ids, can make one.
    """
    return _encode(base, text, special=special, split_special_tokens=True)


def _encode(base: ServedBase, text: str, *, special: bool = False, **options: bool) -> list[int]:
    base.check_size(text)
    tokenizer = base.tokenizer
    # Not verbose: a text beyond the tokenizer's own limit is refused in our words, not logged in its.
    ids = tokenizer.encode(text, add_special_tokens=special, verbose=False, **options)
    return [int(token_id) for token_id in ids]


def encode_messages(
    base: ServedBase,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] = (),
    add_generation_prompt: bool = True,
) -> list[int]:
    """A conversation through the base's own chat template, as token ids; raises a 400.

    Also where the template would leave the tools, or past calls of them, out of the prompt without a word.
    """
    turns = [_turn(message) for message in messages]
    mask = SpecialsMask(base.vocabulary.specials)
    turns = [mask.hide(turn) for turn in turns]
    tools = [Tool.model_validate(mask.hide(tool.model_dump())) for tool in tools]
    text = _render(base, turns, tools, add_generation_prompt)
    if tools and text == _render(base, turns, (), add_generation_prompt):
        raise bad_request(f"The chat template of {base.name!r} does not know `tools`.", "tools")
    if any("tool_calls" in turn for turn in turns):
        plain = [{key: value for key, value in turn.items() if key != "tool_calls"} for turn in turns]
        if text == _render(base, plain, tools, add_generation_prompt):
            raise bad_request(f"The chat template of {base.name!r} does not know `tool_calls`.", "messages")
    # The template writes the special tokens itself.
    if not mask.used:
        return _encode(base, text)
    return [
        token_id
        for piece in mask.pieces(text)
        for token_id in ([piece] if isinstance(piece, int) else encode_text(base, piece, special=False))
    ]


def chat_template(base: ServedBase) -> str:
    """The base's chat template; where it has several, all of them. Raises a 400 where it has none."""
    template = getattr(base.tokenizer, "chat_template", None)
    if not template:
        raise bad_request(f"The base {base.name!r} has no chat template; use /v1/completions.", "model")
    return "\n".join(template.values()) if isinstance(template, dict) else str(template)


def _render(
    base: ServedBase, turns: Sequence[dict[str, Any]], tools: Sequence[Tool], add_generation_prompt: bool
) -> str:
    chat_template(base)
    tokenizer = base.tokenizer
    # Not every tokenizer's method takes tools: they are passed on only where there are some.
    offered = {"tools": [tool.model_dump(exclude_none=True) for tool in tools]} if tools else {}
    try:
        text = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt, **offered
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise bad_request(f"The chat template refuses these messages: {echo(error)}", "messages") from None
    return str(text)


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": message.content or "",
    }
    if message.tool_calls:
        turn["tool_calls"] = [_past_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
        if message.name is not None:
            turn["name"] = message.name
    return turn


def _past_call(call: ToolCall) -> dict[str, Any]:
    # Templates write the arguments as they see fit, and so want them as an object.
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

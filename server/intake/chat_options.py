"""What a request asks of the chat template: its ending, and values for what it reads."""

from __future__ import annotations

import inspect
import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from server.errors import bad_request, echo
from server.intake.chat_template import TemplateOptions, template_text
from server.protocol.chat import ChatRequest
from server.protocol.tokens import TokenizeRequest
from server.served_base import ServedBase

_TAKEN = frozenset(
    {
        *inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters,
        *(
            "messages",
            "tools",
            "documents",
            "bos_token",
            "eos_token",
            "raise_exception",
            "strftime_now",
            "self",
        ),
    }
)
"""Names that mean something to the renderer itself."""


def chat_options(base: ServedBase, body: ChatRequest | TokenizeRequest) -> TemplateOptions:
    """The options of a request; raises a 400 that names the field."""
    continued = bool(body.continue_final_message)
    if continued and body.add_generation_prompt:
        raise bad_request(
            "`continue_final_message` and `add_generation_prompt` exclude each other.",
            "continue_final_message",
        )
    if continued and not (body.messages and body.messages[-1].content):
        raise bad_request("The last message has no text to go on with.", "continue_final_message")
    shown: dict[str, Any] = dict(body.chat_template_kwargs or {})
    template = template_text(base) if shown or isinstance(body, ChatRequest) else ""
    for name in shown:
        if name in _TAKEN or not _reads(template, name):
            raise bad_request(
                f"The chat template of {base.name!r} reads no {echo(repr(name))}.", "chat_template_kwargs"
            )
    if isinstance(body, ChatRequest):
        if body.reasoning_effort is not None and _reads(template, "reasoning_effort"):
            shown.setdefault("reasoning_effort", body.reasoning_effort)
        if body.documents:
            shown["documents"] = body.documents
    adds = body.add_generation_prompt is not False and not continued
    return TemplateOptions(adds, continued, shown)


def reads(base: ServedBase, name: str) -> bool:
    """Whether the base's chat template reads a value of this name. Raises a 400 where it has no template."""
    return _reads(template_text(base), name)


def _reads(template: str, name: str) -> bool:
    """Whether the template's text has the name. No value of a client's is ever template code."""
    return name.isidentifier() and re.search(rf"\b{name}\b", template) is not None

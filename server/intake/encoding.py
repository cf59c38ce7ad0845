"""Texts and conversations as a base's token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from server.intake.chat_template import TemplateOptions, render, template_turn
from server.intake.special_tokens import SpecialTokenMask
from server.protocol.messages import Message
from server.protocol.tools import Tool
from server.served_base import ServedBase


@dataclass(frozen=True, slots=True)
class Conversation:
    """The token ids of a conversation; `thinking`: its prompt ends with the tag that opens thoughts."""

    ids: list[int]
    thinking: bool


def encode_text(base: ServedBase, text: str, *, special: bool = True) -> list[int]:
    """A text as token ids; with `special`, between the special tokens that the tokenizer adds around a text.

    A special token's surface in the text stays text: only a chat template, or a client that sends ids, makes a special
    token. Raises a 413 for a text that is too long.
    """
    return _encode(base, text, special=special, split_special_tokens=True)


def bad_sequences(base: ServedBase, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The token sequences that spell each word at the beginning of a text, or after a space, as in vLLM."""
    found: dict[tuple[int, ...], None] = {}
    for word in words:
        for text in (word.lstrip(), " " + word.lstrip()):
            if ids := encode_text(base, text, special=False):
                found[tuple(ids)] = None
    return tuple(found)


def truncated(base: ServedBase, ids: Sequence[int], most: int | None) -> tuple[int, ...]:
    """The last `most` of a prompt's tokens: all for None, and for -1 what leaves room for one more."""
    if most is None:
        return tuple(ids)
    kept = base.max_model_len - 1 if most == -1 else most
    return tuple(ids[-kept:]) if kept else ()


def encode_messages(
    base: ServedBase,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] = (),
    options: TemplateOptions | None = None,
    special: bool = False,
) -> Conversation:
    """A conversation as token ids, through the base's own chat template.

    `special`: between the special tokens that the tokenizer adds around a text. A template usually writes its own.

    Raises a 400 for messages or tools that the template does not take, and a 413 for a conversation that is too long.
    """
    mask = SpecialTokenMask(base.vocabulary.specials)
    turns = [mask.hide(template_turn(message)) for message in messages]
    hidden = [Tool.model_validate(mask.hide(tool.model_dump())) for tool in tools]
    options = options or TemplateOptions()
    text = render(base, turns, hidden, replace(options, shown=mask.hide(dict(options.shown))))
    thinking = text.rstrip().endswith("<think>")
    if not mask.used:
        return Conversation(_encode(base, text, special=special), thinking)
    ids = [
        token_id
        for piece in mask.pieces(text)
        for token_id in ([piece] if isinstance(piece, int) else encode_text(base, piece, special=False))
    ]
    return Conversation(_with_specials(base, ids) if special else ids, thinking)


def _with_specials(base: ServedBase, ids: list[int]) -> list[int]:
    """Token ids between the special tokens that the tokenizer adds around a text, as it does around a letter."""
    alone, around = _encode(base, "x"), _encode(base, "x", special=True)
    start = next((i for i in range(len(around)) if around[i : i + len(alone)] == alone), 0)
    return [*around[:start], *ids, *around[start + len(alone) :]]


def _encode(base: ServedBase, text: str, *, special: bool = False, **options: bool) -> list[int]:
    base.check_size(text)
    # Without `verbose=False` transformers logs a warning of its own for a text beyond the model's limit.
    ids = base.tokenizer.encode(text, add_special_tokens=special, verbose=False, **options)
    return [int(token_id) for token_id in ids]

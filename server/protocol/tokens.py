"""`POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`."""

from __future__ import annotations

from pydantic import Field

from server.protocol.chat import Message
from server.protocol.common import Reply, Wire, absent


class TokenizeRequest(Wire):
    """Exactly one of `prompt` and `messages`. No `model`: the first base."""

    model: str | None = None
    """a base, or a pair of base and adapter. Default: the first base"""
    prompt: str | None = None
    """a text"""
    messages: list[Message] | None = Field(None, min_length=1)
    """or a conversation, by the chat template"""
    add_special_tokens: bool | None = None
    """those that the tokenizer puts around a text. Default: `true`"""
    add_generation_prompt: bool | None = None
    """what makes the model answer. Default: `true`"""
    return_token_strs: bool | None = None
    """the tokens as text too"""


class Tokenized(Reply):
    """`token_strs` only where they were asked for."""

    count: int
    """how many"""
    max_model_len: int
    """how many the base holds"""
    tokens: list[int]
    """the ids"""
    token_strs: list[str] | None = Field(default=None, exclude_if=absent)
    """each as text"""


class DetokenizeRequest(Wire):
    """No `model`: the first base."""

    model: str | None = None
    """a base, or a pair of base and adapter. Default: the first base"""
    tokens: list[int]
    """the ids"""


class Detokenized(Reply):
    """The text that the ids stand for; special tokens have none."""

    prompt: str
    """the text"""

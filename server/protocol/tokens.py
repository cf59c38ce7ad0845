"""`POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`."""

from __future__ import annotations

from pydantic import Field

from server.protocol.chat import Message
from server.protocol.common import Reply, Wire, absent


class TokenizeRequest(Wire):
    """Exactly one of `prompt` and `messages`. No `model`: the first base."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1)
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    return_token_strs: bool | None = None


class Tokenized(Reply):
    """`token_strs` only where they were asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = Field(default=None, exclude_if=absent)


class DetokenizeRequest(Wire):
    """No `model`: the first base."""

    model: str | None = None
    tokens: list[int]


class Detokenized(Reply):
    """The text that the ids stand for; special tokens have none."""

    prompt: str

"""`POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from server.protocol.chat import TemplateValue
from server.protocol.messages import Message
from server.protocol.objects import ReplyObject, RequestObject, absent
from server.protocol.tools import MAX_TOOLS, Tool


class TokenizeRequest(RequestObject):
    """A text or a conversation to tokenize: exactly one of `prompt` and `messages`."""

    model: str | None = None
    """a base, or a pair of base and adapter. Default: the first base"""
    prompt: str | None = None
    """the text"""
    messages: list[Message] | None = Field(None, min_length=1)
    """the conversation, which goes through the chat template"""
    add_special_tokens: bool | None = None
    """add the special tokens that the tokenizer puts around a text; a chat template writes its own. Default: `true` for
    a `prompt`, `false` for `messages`"""
    add_generation_prompt: bool | None = None
    """end the conversation with the beginning of the assistant's turn. Default: `true`"""
    continue_final_message: bool | None = None
    """leave the last message open"""
    chat_template_kwargs: dict[Annotated[str, Field(max_length=64)], TemplateValue] | None = Field(
        None, max_length=16
    )
    """values for what the base's chat template reads; any other key is refused"""
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    """functions for the chat template to show"""
    return_token_strs: bool | None = None
    """return each token as text too"""


class Tokenized(ReplyObject):
    """The token ids of a text or a conversation."""

    count: int
    """the number of tokens"""
    max_model_len: int
    """the most tokens of a prompt and its answer together"""
    tokens: list[int]
    """the token ids"""
    token_strs: list[str] | None = Field(default=None, exclude_if=absent)
    """each token as text, with `return_token_strs`"""


class DetokenizeRequest(RequestObject):
    """Token ids to turn into text."""

    model: str | None = None
    """a base, or a pair of base and adapter. Default: the first base"""
    tokens: list[int]
    """the token ids"""


class Detokenized(ReplyObject):
    """The text of the token ids."""

    prompt: str
    """the text; special tokens add none"""


class TokenizerInfo(ReplyObject):
    """`GET /tokenizer_info`, as lm-evaluation-harness reads it."""

    tokenizer_class: str = Field(description="the tokenizer's class in transformers")
    vocab_size: int = Field(description="how many tokens the base scores")
    model_max_length: int = Field(description="the most tokens of a prompt and its completion together")
    bos_token: str | None = Field(description="the special token that begins a text; null if there is none")
    eos_token: str | None = Field(description="the special token that ends a text; null if there is none")
    pad_token: str | None = Field(description="the padding token; null if there is none")
    unk_token: str | None = Field(description="the unknown token; null if there is none")
    chat_template: str | None = Field(
        description="the Jinja template of conversations; null if there is none"
    )

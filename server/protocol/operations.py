"""Replies about the server itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from server.protocol.common import Reply


class Status(Reply):
    """`GET /health` and `GET /ready`."""

    status: Literal["alive", "ready"] = Field(description="what was asked about holds")


class Version(Reply):
    """`GET /version`."""

    version: str = Field(description="of the distribution `trimtab`")


class TokenizerInfo(Reply):
    """`GET /tokenizer_info`, as lm-evaluation-harness reads it."""

    tokenizer_class: str = Field(description="its class in transformers")
    vocab_size: int = Field(description="how many tokens the base scores")
    model_max_length: int = Field(description="the most tokens of a prompt and its completion together")
    bos_token: str | None = Field(description="the special token that begins a text, where there is one")
    eos_token: str | None = Field(description="the special token that ends a text, where there is one")
    pad_token: str | None = Field(description="the special token that fills up, where there is one")
    unk_token: str | None = Field(description="the special token for the unknown, where there is one")
    chat_template: str | None = Field(description="the Jinja template of conversations, where there is one")

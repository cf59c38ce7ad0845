"""Further fields of vLLM's, llama.cpp's and SGLang's requests, for completions and chat alike."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from server.protocol.answer_form.structured import FormFields
from server.protocol.numbers import WHOLE

MAX_LOGPROBS = 20
_MAX_BAD_WORDS = 256


class ExtraFields(FormFields):
    """Fields on tokens, and fields that change nothing here."""

    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = None
    """return the logprob of each token of the prompt under the steered distribution, and those of this many likeliest
    tokens; not with `stream`"""
    return_token_ids: bool | None = None
    """return the token ids of prompts and answers too"""
    return_tokens_as_token_ids: bool | None = None
    """in logprobs, name each token `token_id:ID` instead of by its text"""
    bad_words: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=_MAX_BAD_WORDS)]
        | None
    ) = None
    """texts that the answer may not contain as these tokens, at its beginning or after a space"""
    allowed_token_ids: (
        Annotated[list[Annotated[int, WHOLE]], Field(min_length=1, max_length=2**18)] | None
    ) = None
    """the only tokens that the answer may have; not with a form of the answer or `tools`"""
    skip_special_tokens: bool | None = None
    """false: special tokens in the answer are text too, but for those that end it. Default: `true`"""
    spaces_between_special_tokens: bool | None = None
    """accepted and ignored: no spaces are put between special tokens"""
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=2**31), WHOLE] | None = None
    """keep only this many tokens of the prompt, the last ones; -1 keeps what leaves room for one token"""
    request_id: str | None = Field(None, pattern="^[A-Za-z0-9._:-]{1,128}$")
    """the end of the reply's id. Default: a new one"""
    priority: Annotated[int, Field(ge=-(2**31), le=2**31), WHOLE] | None = None
    """accepted and ignored: sequences are served in the order of their arrival"""
    cache_prompt: bool | None = None
    """accepted and ignored: prefixes are always shared"""
    use_beam_search: Literal[False] | None = None
    """false, as clients send it; there is no beam search"""
    length_penalty: Literal[1] | None = None
    """1, as clients send it"""
    typical_p: Literal[1] | None = None
    """1, which switches it off"""
    tfs_z: Literal[1] | None = None
    """1, which switches it off"""
    mirostat: Literal[0] | None = None
    """0, which switches it off"""
    dynatemp_range: Literal[0] | None = None
    """0, which switches it off"""
    xtc_probability: Literal[0] | None = None
    """0, which switches it off"""
    dry_multiplier: Literal[0] | None = None
    """0, which switches it off"""
    user: str | None = Field(None, max_length=1024)
    """accepted and ignored, like the fields below, so that clients that send them are served"""
    metadata: dict[str, str] | None = Field(None, max_length=16)
    """accepted and ignored"""
    store: bool | None = None
    """accepted and ignored"""
    service_tier: str | None = Field(None, max_length=64)
    """accepted and ignored"""
    safety_identifier: str | None = Field(None, max_length=1024)
    """accepted and ignored"""
    prompt_cache_key: str | None = Field(None, max_length=1024)
    """accepted and ignored"""
    prompt_cache_retention: str | None = Field(None, max_length=64)
    """accepted and ignored"""

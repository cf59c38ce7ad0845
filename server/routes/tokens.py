"""`POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`."""

from __future__ import annotations

from fastapi import APIRouter, Request

from server.errors import bad_request, echo
from server.intake.body import read_body
from server.intake.chat_options import chat_options
from server.intake.encoding import encode_messages, encode_text
from server.protocol.tokens import (
    Detokenized,
    DetokenizeRequest,
    Tokenized,
    TokenizeRequest,
    TokenizerInfo,
)
from server.replies.token_text import token_text
from server.service import service_of
from steering.crossing.text import decode

router = APIRouter()


@router.post("/tokenize")
async def tokenize(request: Request) -> Tokenized:
    """Turns a text or a conversation into token ids."""
    service = service_of(request)
    body = await read_body(request, TokenizeRequest, service.config)
    await service.settle(body.model)
    base = service.base(body.model)
    messages, prompt = body.messages, body.prompt
    if (messages is None) == (prompt is None):
        raise bad_request("Exactly one of `prompt` and `messages` is needed.", "prompt")
    if messages is None and body.tools:
        raise bad_request("`tools` need `messages`.", "tools")

    def encode() -> list[int]:
        if messages is not None:
            options = chat_options(base, body)
            special = bool(body.add_special_tokens)
            tools = body.tools or ()
            return encode_messages(base, messages, tools=tools, options=options, special=special).ids
        return encode_text(base, prompt or "", special=body.add_special_tokens is not False)

    tokens = await base.off_loop(encode)
    vocabulary = base.vocabulary
    return Tokenized(
        count=len(tokens),
        max_model_len=base.max_model_len,
        tokens=tokens,
        token_strs=[token_text(vocabulary, token) for token in tokens] if body.return_token_strs else None,
    )


@router.post("/detokenize")
async def detokenize(request: Request) -> Detokenized:
    """Turns token ids into text."""
    service = service_of(request)
    body = await read_body(request, DetokenizeRequest, service.config)
    await service.settle(body.model)
    base = service.base(body.model)
    vocabulary = base.vocabulary
    wrong = next((token for token in body.tokens if not 0 <= token < len(vocabulary)), None)
    if wrong is not None:
        raise bad_request(
            f"`tokens` has the id {echo(wrong)}; ids go from 0 to {len(vocabulary) - 1}.", "tokens"
        )
    return Detokenized(prompt=await base.off_loop(lambda: decode(vocabulary, body.tokens)))


@router.get("/tokenizer_info")
async def tokenizer_info(request: Request, model: str | None = None) -> TokenizerInfo:
    """Describes a base's tokenizer: its class, special tokens and chat template."""
    service = service_of(request)
    await service.settle(model)
    base = service.base(model)
    tokenizer = base.tokenizer
    return TokenizerInfo(
        tokenizer_class=type(tokenizer).__name__,
        vocab_size=base.vocab_size,
        model_max_length=base.max_model_len,
        bos_token=getattr(tokenizer, "bos_token", None),
        eos_token=getattr(tokenizer, "eos_token", None),
        pad_token=getattr(tokenizer, "pad_token", None),
        unk_token=getattr(tokenizer, "unk_token", None),
        chat_template=getattr(tokenizer, "chat_template", None),
    )

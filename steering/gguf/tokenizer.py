"""A model's tokenizer, from the tables in its GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from steering.gguf.byte_level import byte_level_tokenizer
from steering.gguf.file import GgufFile
from steering.gguf.pre_tokenizers import pre_tokenizer_of
from steering.gguf.sentencepiece import sentencepiece_tokenizer
from steering.gguf.token_table import (
    BOS_ID,
    EOS_ID,
    PADDING_ID,
    UNKNOWN_ID,
    TokenTable,
    named_id,
    read_token_table,
)

MODEL = "tokenizer.ggml.model"
ADD_BOS, ADD_EOS = "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"
TEMPLATE, TEMPLATES = "tokenizer.chat_template", "tokenizer.chat_templates"

_BYTE_LEVEL, _SENTENCEPIECE = "gpt2", "llama"
_KINDS: Mapping[str, Callable[[GgufFile, TokenTable], Tokenizer]] = {
    _BYTE_LEVEL: byte_level_tokenizer,
    _SENTENCEPIECE: sentencepiece_tokenizer,
}
_ROLES = {"bos_token": BOS_ID, "eos_token": EOS_ID, "unk_token": UNKNOWN_ID, "pad_token": PADDING_ID}
# Phi-3's special tokens take the spaces after them, all but these. No field says so; llama.cpp goes by the name too.
_PHI3_NAMES = ("phi-3", "phi3")
_PHI3_KEEPS_SPACES = frozenset({"<unk>", "<s>", "<|endoftext|>"})


def gguf_tokenizer(file: GgufFile) -> Any:
    """The tokenizer of the model in a file, with its chat template. Raises ModelLoadError that names the field."""
    kind = file.require(MODEL, str)
    build = _KINDS.get(kind)
    if build is None:
        raise file.error(f"{MODEL} is {kind!r}; supported are {', '.join(sorted(_KINDS))}")
    table = read_token_table(file)
    backend = build(file, table)
    strips = any(name in file.get("general.name", str, "").lower() for name in _PHI3_NAMES)
    backend.add_special_tokens(
        [
            AddedToken(text, normalized=False, rstrip=strips and text not in _PHI3_KEEPS_SPACES)
            for text in _texts(table, table.special)
        ]
    )
    backend.add_tokens([AddedToken(text, normalized=False) for text in _texts(table, table.verbatim)])
    named = {
        role: table.texts[token] for role, key in _ROLES.items() if (token := named_id(file, key)) is not None
    }
    _surround(backend, file, kind, named)
    template = _chat_template(file)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        **named,
        **({"chat_template": template} if template else {}),
    )


def _texts(table: TokenTable, ids: frozenset[int]) -> list[str]:
    return [table.texts[token] for token in sorted(ids)]


def _surround(backend: Tokenizer, file: GgufFile, kind: str, named: Mapping[str, str]) -> None:
    """Have the tokenizer begin a text with BOS and end it with EOS where the file, or else its kind, says so."""
    default = kind == _SENTENCEPIECE or pre_tokenizer_of(file).adds_bos
    bos = named.get("bos_token") if file.get(ADD_BOS, bool, default) else None
    eos = named.get("eos_token") if file.get(ADD_EOS, bool, False) else None
    if bos is None and eos is None:
        return
    around = [token for token in (bos, eos) if token is not None]
    backend.post_processor = processors.TemplateProcessing(
        single=[*([bos] if bos else []), "$A", *([eos] if eos else [])],
        special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys(around)],
    )


def _chat_template(file: GgufFile) -> str | dict[str, str] | None:
    """The chat template; where the file has several, all of them by name."""
    if not file.has(TEMPLATE):
        return None
    main = file.require(TEMPLATE, str)
    if not file.has(TEMPLATES):
        return main
    named = {name: file.require(f"{TEMPLATE}.{name}", str) for name in file.sequence(TEMPLATES, str)}
    return {"default": main, **named}

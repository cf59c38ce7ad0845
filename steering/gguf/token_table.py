"""A file's tokens: their texts, types and ids, and which of them are special."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from steering.gguf.file import GgufFile

TOKENS = "tokenizer.ggml.tokens"
TYPES = "tokenizer.ggml.token_type"
BOS_ID, EOS_ID = "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"
UNKNOWN_ID, PADDING_ID = "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id"
END_IDS = (EOS_ID, "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")

_NAMED_IDS = (*END_IDS, BOS_ID, UNKNOWN_ID, PADDING_ID)
# End-of-turn tokens that some files store as ordinary ones. llama.cpp makes them special too.
_END_OF_TURN = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>",
    "<EOT>", "[EOT]", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<end_of_utterance>",
})  # fmt: skip


class TokenType(IntEnum):
    """The values of `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The tokens of a file. `texts[i]` and `types[i]` belong to id `i`; no two texts are equal.

    `special`: ids of tokens that stand for no text, which a prompt may contain. `verbatim`: ids of tokens of ordinary
    text that are looked for before the text is split.
    """

    texts: Sequence[str]
    types: Sequence[int]
    special: frozenset[int]
    verbatim: frozenset[int]


def read_token_table(file: GgufFile) -> TokenTable:
    """Read the tokens. Raises ModelLoadError that names the field at fault."""
    texts = file.sequence(TOKENS, str)
    if len(set(texts)) != len(texts):
        raise file.error(f"{TOKENS} has the same token twice")
    types: Sequence[int] = [TokenType.NORMAL] * len(texts)
    if file.has(TYPES):
        types = file.sequence(TYPES, int)
    if len(types) != len(texts):
        raise file.error(f"{TYPES} has {len(types)} entries for {len(texts)} tokens")
    special = {token for token, kind in enumerate(types) if kind in (TokenType.CONTROL, TokenType.UNKNOWN)}
    special |= {token for token, text in enumerate(texts) if text in _END_OF_TURN}
    for key in _NAMED_IDS:
        token = named_id(file, key)
        if token is not None and not 0 <= token < len(texts):
            raise file.error(f"{key} is {token}, but {TOKENS} has {len(texts)} entries")
        special |= set() if token is None else {token}
    user_defined = {token for token, kind in enumerate(types) if kind == TokenType.USER_DEFINED}
    return TokenTable(texts, types, frozenset(special), frozenset(user_defined - special))


def named_id(file: GgufFile, key: str) -> int | None:
    """The id in a field such as `tokenizer.ggml.bos_token_id`; None where the file lacks it."""
    return file.require(key, int) if file.has(key) else None

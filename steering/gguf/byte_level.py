"""Byte-level BPE tokenizers, `tokenizer.ggml.model` "gpt2"."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from steering.gguf.file import GgufFile
from steering.gguf.pre_tokenizers import pre_tokenizer_of
from steering.gguf.token_table import TokenTable, TokenType

MERGES = "tokenizer.ggml.merges"


def byte_level_tokenizer(file: GgufFile, table: TokenTable) -> Tokenizer:
    """The tokenizer without its added tokens. Raises ModelLoadError that names the field at fault."""
    split = pre_tokenizer_of(file)
    merges = [_pair(file, merge) for merge in file.sequence(MERGES, str)]
    merged = {part for pair in merges for part in (*pair, "".join(pair))}
    # Files fill up the ids that no token has with tokens such as `[PAD151665]`.
    vocabulary = {
        text: token
        for token, text in enumerate(table.texts)
        if table.types[token] != TokenType.UNUSED or text in merged or token in table.special
    }
    unknown = next((part for part in merged if part not in vocabulary), None)
    if unknown is not None:
        raise file.error(f"{MERGES} names {unknown!r}, which is not a token")
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=split.ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pair(file: GgufFile, merge: str) -> tuple[str, str]:
    """The two parts of a merge. The first has at least one character, which may be a space."""
    left, space, right = merge[1:].partition(" ")
    left = merge[:1] + left
    if not space or not right:
        raise file.error(f"{MERGES} has {merge[:40]!r}, which is not two tokens")
    return left, right

"""SentencePiece BPE tokenizers, `tokenizer.ggml.model` "llama": Llama 2, Mistral, Gemma, Phi-3."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers

from steering.gguf.file import GgufFile
from steering.gguf.token_table import UNKNOWN_ID, TokenTable, TokenType, named_id

SCORES = "tokenizer.ggml.scores"
ADD_SPACE = "tokenizer.ggml.add_space_prefix"

_SPACE = "\u2581"


def sentencepiece_tokenizer(file: GgufFile, table: TokenTable) -> Tokenizer:
    """The tokenizer without its added tokens. Raises ModelLoadError that names the field at fault."""
    scores = file.sequence(SCORES, float)
    if len(scores) != len(table.texts):
        raise file.error(f"{SCORES} has {len(scores)} entries for {len(table.texts)} tokens")
    unknown = named_id(file, UNKNOWN_ID)
    tokenizer = Tokenizer(
        models.BPE(
            {text: token for token, text in enumerate(table.texts)},
            _merges(table, scores),
            unk_token=None if unknown is None else table.texts[unknown],
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    add_space = file.get(ADD_SPACE, bool, True)
    spaces = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if add_space else spaces
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if add_space else []),
        ]
    )
    return tokenizer


def _merges(table: TokenTable, scores: Sequence[float]) -> list[tuple[str, str]]:
    """The merges that the scores stand for: SentencePiece joins two tokens into the one of the highest score."""
    plain = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
    joined = {
        text: token
        for token, text in enumerate(table.texts)
        if table.types[token] in plain and token not in table.special
    }
    merges = []
    for text, token in joined.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in joined and right in joined:
                merges.append((-scores[token], token, left, right))
    merges.sort()
    return [(left, right) for *_, left, right in merges]

"""`tokenizer.ggml.pre`: how text is split before byte-level BPE.

The patterns are those of the models' own `tokenizer.json`; the names and the kinds they stand for are llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from steering.gguf.file import GgufFile

PRE = "tokenizer.ggml.pre"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """Patterns that split the text one after the other.

    `ignore_merges`: a piece that is a token becomes that token, whatever the merges would make of it. `adds_bos`: a
    text begins with the BOS token where the file does not say.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    adds_bos: bool = False


_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD_END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_CAPITALISED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = _ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _WORD_END
_QWEN2 = _ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _WORD_END
_QWEN35 = _ENGLISH + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _WORD_END
_TEKKEN = _CAPITALISED % ("", "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _WORD_END
_GPT4O = (
    _CAPITALISED % (_ENGLISH + "?", _ENGLISH + "?") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _WORD_END
)
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*" + _WORD_END,
)

_BY_DIGIT = PreTokenizer((r"\p{N}", _GPT2))
_WORDS = PreTokenizer((_GPT2,))
_LIKE_LLAMA3 = PreTokenizer((_LLAMA3,), ignore_merges=True, adds_bos=True)
_LIKE_QWEN2 = PreTokenizer((_QWEN2,))
_LIKE_GPT4O = PreTokenizer((_GPT4O,))

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    **dict.fromkeys(
        ("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "trillion", "granite-docling"), _WORDS
    ),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _BY_DIGIT
    ),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"), _LIKE_LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), PreTokenizer((_LLAMA3,))),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"), _LIKE_QWEN2),
    "qwen35": PreTokenizer((_QWEN35,)),
    "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True, adds_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), _LIKE_GPT4O),
    "deepseek-v3": PreTokenizer(_DEEPSEEK3),
}


def pre_tokenizer_of(file: GgufFile) -> PreTokenizer:
    """How a file's byte-level tokenizer splits text. Raises ModelLoadError for an unknown name, or for none.

    Files without the field are older than it, and nothing else tells how they were split.
    """
    name = file.require(PRE, str)
    found = PRE_TOKENIZERS.get(name)
    if found is None:
        raise file.error(f"{PRE} is {name!r}; supported are {', '.join(sorted(PRE_TOKENIZERS))}")
    return found

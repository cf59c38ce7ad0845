"""Reading a model folder's tokenizer as its own `tokenizer.json` defines it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

_SAMPLE = "It's 12 o'clock,  she said:\n\n\tnaïve café 東京 🙂"


def no_surprises(name: str) -> dict[str, Any]:
    """What every reading of a local folder or Hugging Face id is told: no code, and nothing fetched for a folder."""
    return {"trust_remote_code": False, "local_files_only": Path(name).is_dir()}


def read_tokenizer(name: str) -> Any:
    """The tokenizer of a local folder or Hugging Face id; raises whatever transformers raises.

    For some architectures transformers builds a class of its own whatever the folder holds (a Qwen2 model with a
    SentencePiece tokenizer gets Qwen2's splitting and tokens). What the model was trained with is the file, so where
    the two disagree the file is taken as it stands.
    """
    tokenizer = AutoTokenizer.from_pretrained(name, **no_surprises(name))
    file = Path(name) / "tokenizer.json"
    if not file.is_file():
        return tokenizer
    stored = Tokenizer.from_file(str(file))
    stored.no_truncation()
    same_tokens = stored.get_vocab(with_added_tokens=True) == tokenizer.get_vocab()
    if same_tokens and stored.encode(_SAMPLE, add_special_tokens=False).ids == tokenizer.encode(
        _SAMPLE, add_special_tokens=False
    ):
        return tokenizer
    return PreTrainedTokenizerFast.from_pretrained(name, **no_surprises(name))

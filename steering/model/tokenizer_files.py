"""Reading a model folder's tokenizer as its own `tokenizer.json` defines it."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mapping_cache import CanonicalVocabulary, canonical_vocabulary

_TOKENIZER_SUFFIXES = (".json", ".model", ".txt", ".jinja")
# config.json stays in: for some architectures it decides the tokenizer's class.
_OTHER_FILES = ("generation_config.json", "model.safetensors.index.json", "adapter.json", "card.json")
_SAMPLE = "It's 12 o'clock,  she said:\n\n\tnaïve café 東京 🙂"


def no_surprises(name: str) -> dict[str, Any]:
    """What every reading of a local folder or Hugging Face id is told: no code, and nothing fetched for a folder."""
    return {"trust_remote_code": False, "local_files_only": Path(name).is_dir()}


class SharedTokenizers:
    """Tokenizers and their vocabularies, kept once for folders whose tokenizer files are the same.

    Adapters are many and their tokenizers few, and a tokenizer may take more memory than the tiny model beside it. Any
    thread. Models that requests are tokenized for don't share: a tokenizer is not made for two threads.
    """

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._tokenizers: OrderedDict[str, Any] = OrderedDict()
        self._vocabularies: WeakKeyDictionary[Any, dict[int, CanonicalVocabulary]] = WeakKeyDictionary()

    def tokenizer(self, name: str) -> Any:
        """As `read_tokenizer`, of a local folder."""
        key = _digest(Path(name))
        with self._lock:
            if key not in self._tokenizers:
                self._tokenizers[key] = read_tokenizer(name)
                if len(self._tokenizers) > self._most:
                    self._tokenizers.popitem(last=False)
            self._tokenizers.move_to_end(key)
            return self._tokenizers[key]

    def vocabulary(self, tokenizer: Any, size: int) -> CanonicalVocabulary:
        """As `canonical_vocabulary`, of a tokenizer that was read here."""
        with self._lock:
            sizes = self._vocabularies.setdefault(tokenizer, {})
            if size not in sizes:
                sizes[size] = canonical_vocabulary(tokenizer, size)
            return sizes[size]


def _digest(folder: Path) -> str:
    """Of everything in a folder that a tokenizer may be read from: all but the weights and the training's notes."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in _TOKENIZER_SUFFIXES and file.name not in _OTHER_FILES:
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


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

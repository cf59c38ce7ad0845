"""Reading a model's tokenizer as its own `tokenizer.json` defines it, and sharing equal tokenizers."""

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
from steering.gguf.file import open_gguf
from steering.gguf.location import gguf_file
from steering.gguf.tokenizer import gguf_tokenizer

_TOKENIZER_SUFFIXES = (".json", ".model", ".txt", ".jinja")
# config.json is not among them: for some architectures it decides the tokenizer's class.
_OTHER_FILES = ("generation_config.json", "model.safetensors.index.json", "adapter.json", "card.json")
_SAMPLE = "It's 12 o'clock,  she said:\n\n\tnaïve café 東京 🙂"


def loading_options(name: str) -> dict[str, Any]:
    """The arguments of every `from_pretrained`: no remote code, and no downloads for a local folder."""
    return {"trust_remote_code": False, "local_files_only": Path(name).is_dir()}


class SharedTokenizers:
    """A cache of tokenizers and their vocabularies: folders with equal tokenizer files share one of each.

    Many adapters have few tokenizers, and a tokenizer may take more memory than its tiny model. The cache is
    thread-safe; a tokenizer itself is not, so the bases, which tokenize requests, do not share theirs.
    """

    def __init__(self, capacity: int = 8) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._tokenizers: OrderedDict[str, Any] = OrderedDict()
        self._vocabularies: WeakKeyDictionary[Any, dict[int, CanonicalVocabulary]] = WeakKeyDictionary()

    def tokenizer(self, name: str) -> Any:
        """Return the tokenizer of a local model, from the cache or by `read_tokenizer`."""
        key = _digest(Path(name))
        with self._lock:
            if key not in self._tokenizers:
                self._tokenizers[key] = read_tokenizer(name)
                if len(self._tokenizers) > self._capacity:
                    self._tokenizers.popitem(last=False)
            self._tokenizers.move_to_end(key)
            return self._tokenizers[key]

    def vocabulary(self, tokenizer: Any, size: int) -> CanonicalVocabulary:
        """Return the canonical vocabulary of a tokenizer from this cache, `size` tokens wide."""
        with self._lock:
            sizes = self._vocabularies.setdefault(tokenizer, {})
            if size not in sizes:
                sizes[size] = canonical_vocabulary(tokenizer, size)
            return sizes[size]


def _digest(folder: Path) -> str:
    """Hash every file of a folder that may define its tokenizer: all but the weights and the training's notes.

    A GGUF file is hashed as a whole, since its tokenizer is in the same file as its weights.
    """
    digest = hashlib.sha256()
    stored = gguf_file(folder)
    if stored is not None:
        with stored.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in _TOKENIZER_SUFFIXES and file.name not in _OTHER_FILES:
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def read_tokenizer(name: str) -> Any:
    """Read the tokenizer of a local folder, Hugging Face id or GGUF file.

    Any exception of transformers passes through; a GGUF file's are ModelLoadError.

    For some architectures transformers builds a fixed tokenizer class whatever the folder holds: a Qwen2 model with a
    SentencePiece tokenizer gets Qwen2's splitting and tokens. The model was trained with `tokenizer.json`, so the file
    decides where the two disagree.
    """
    stored_in_gguf = open_gguf(name)
    if stored_in_gguf is not None:
        return gguf_tokenizer(stored_in_gguf)
    tokenizer = AutoTokenizer.from_pretrained(name, **loading_options(name))
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
    return PreTrainedTokenizerFast.from_pretrained(name, **loading_options(name))

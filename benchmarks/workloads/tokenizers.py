"""The published tokenizers beside a checkout, or small ones trained in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from benchmarks.workloads.stand_ins import make_stand_ins

TOKENIZERS = Path(__file__).resolve().parents[3] / "shared" / "tokenizers"
"""The folder of the published tokenizers, where there is one."""


@dataclass(frozen=True, slots=True)
class Tokenizers:
    """A large and a small vocabulary. `real`: they are Qwen's and Llama-2's."""

    large: PreTrainedTokenizerFast
    small: PreTrainedTokenizerFast
    real: bool


def tokenizer_folder(names: Sequence[str], published: Path, scratch: Path) -> tuple[Path, bool]:
    """The folder with a tokenizer for each name, and whether it is `published`.

    Where `published` lacks one of them, all are trained on the spot in `scratch`.
    """
    if all((published / name).is_dir() for name in names):
        return published, True
    return make_stand_ins(scratch, names), False


def read_tokenizers(scratch: Path) -> Tokenizers:
    """Load Qwen's and Llama-2's tokenizers, or the ones trained in their place in `scratch`."""
    folder, real = tokenizer_folder(["qwen", "llama-2"], TOKENIZERS, scratch)
    large, small = (PreTrainedTokenizerFast.from_pretrained(folder / name) for name in ("qwen", "llama-2"))
    return Tokenizers(large, small, real)

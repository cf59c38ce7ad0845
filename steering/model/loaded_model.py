"""A model in memory, with everything that the rest of the engine needs to know about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from mapping_cache import CanonicalVocabulary
from steering.model.forward import Forward

# Relative to the largest logit: kernels round differently at reduced precision.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}


def logit_tolerance(dtype: torch.dtype, largest: float) -> float:
    """How far two computations of the same logits may differ, where `largest` is the largest of their magnitudes."""
    return _TOLERANCE.get(dtype, 1e-1) * max(1.0, largest)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A frozen causal LM with its tokenizer.

    `vocab_size`: the width of its logits, which may exceed the tokenizer's vocabulary.
    `forward`: its pass over paged attention. The pass may own the weights: `model` alone may compute nothing.
    `varlen`: its attention reads the pages in place, by `steering.model.varlen_attention`.
    """

    path: str
    model: torch.nn.Module
    forward: Forward
    tokenizer: PreTrainedTokenizerBase
    vocabulary: CanonicalVocabulary
    vocab_size: int
    max_model_len: int
    eos_token_ids: frozenset[int]
    device: torch.device
    dtype: torch.dtype
    varlen: bool = False

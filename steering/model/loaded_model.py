"""A model in memory, and all that the rest of the engine wants to know of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from mapping_cache import CanonicalVocabulary
from steering.model.forward import Forward

# How far two ways to compute the same logits may lie apart, relative to the largest: reduced precision rounds
# differently from one kernel to the next.
ROUNDING = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A frozen causal LM with its tokenizer.

    `vocab_size` is the width of its logits, which may exceed the tokenizer's. `forward` is the model's pass over paged
    attention, and may hold its weights: `model` alone computes nothing. `varlen`: its attention reads pages in place,
    see `steering.model.varlen`.
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

"""Models with random weights: in memory, or as Hugging Face folders for another process."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from benchmarks.workloads.jobs import SEED
from mapping_cache import canonical_vocabulary
from steering.adapters import Adapter
from steering.adapters.delta import DeltaShift
from steering.model.attention_check import adopt_paged_attention
from steering.model.forward import TransformersForward
from steering.model.loaded_model import LoadedModel


def random_model(
    config: PretrainedConfig,
    tokenizer: Any,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: str = "cpu",
    seed: int = SEED,
) -> LoadedModel:
    """A model of this shape with random weights, ready for the engine. No token ends a text."""
    torch.manual_seed(seed)
    with torch.device(device):
        # A model writes its attention function into its configuration, so it gets a copy of its own.
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype)
    model.eval().requires_grad_(False)
    loaded = LoadedModel(
        path=f"random {type(config).__name__}",
        model=model,
        forward=TransformersForward(model),
        tokenizer=tokenizer,
        vocabulary=canonical_vocabulary(tokenizer, config.vocab_size),
        vocab_size=config.vocab_size,
        max_model_len=config.max_position_embeddings,
        eos_token_ids=frozenset(),
        device=torch.device(device),
        dtype=dtype,
    )
    return adopt_paged_attention(loaded)


def random_delta(name: str, model: LoadedModel, bridge: str = "map") -> Adapter:
    """A delta adapter around a model that is in memory already."""
    return Adapter(name, f"random-{name}", "delta", Path(), (model,), DeltaShift(), bridge=bridge)


def save_random(
    config: PretrainedConfig,
    tokenizer: Any,
    folder: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = SEED,
) -> Path:
    """Write a model of this shape with random weights, and its tokenizer, to `folder`. Returns the folder."""
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def weight_bytes(config: PretrainedConfig, dtype: torch.dtype = torch.bfloat16) -> int:
    """The bytes of a model's parameters, tied ones counted once. An engine may lay them out otherwise."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())

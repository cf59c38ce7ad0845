"""Random models as Hugging Face folders, for what is measured in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from benchmarks.workloads import SEED


def save_random(
    config: PretrainedConfig,
    tokenizer: Any,
    folder: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = SEED,
) -> Path:
    """A model of this shape with random weights, and its tokenizer, in `folder`."""
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def weight_bytes(config: PretrainedConfig, dtype: torch.dtype = torch.bfloat16) -> int:
    """Bytes of a model's parameters, tied ones once, however an engine lays them out."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())

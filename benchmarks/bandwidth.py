"""What reading a model's weights alone would take on this machine: the floor of a decode step of one sequence."""

from __future__ import annotations

import statistics
import time

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

_BYTES = 1 << 30
_ROUNDS = 7


def bytes_per_second(device: str) -> float:
    """Measured by summing a gibibyte again and again; the median of a few rounds."""
    block = torch.ones(_BYTES // 8, dtype=torch.int64, device=device)
    seconds = []
    for _ in range(_ROUNDS):
        _wait(device)
        began = time.perf_counter()
        block.sum()
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return _BYTES / statistics.median(seconds)


def bytes_per_step(config: PretrainedConfig, dtype: torch.dtype = torch.bfloat16) -> int:
    """Bytes of the weights that a decode step reads whole: all but an input embedding that is not the output's too."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    read = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    inputs = model.get_input_embeddings().weight
    if not config.tie_word_embeddings:
        read -= inputs.numel() * inputs.element_size()
    return int(read)


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)

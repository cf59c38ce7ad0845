"""Memory bandwidth. The time to read the weights once is the least that a decode step of one sequence can take."""

from __future__ import annotations

import statistics
import time

import torch
from transformers import PretrainedConfig

from benchmarks.workloads.models import weight_bytes

_BYTES = 1 << 30
_ROUNDS = 7


def bytes_per_second(device: str) -> float:
    """The bandwidth of `device`: the median of seven sums over a gibibyte."""
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
    """The bytes of weights that a decode step reads: all but an input embedding that is not the output's too."""
    apart = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size * dtype.itemsize
    return weight_bytes(config, dtype) - apart


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)

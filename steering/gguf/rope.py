"""Rotary position embeddings: a file's fields and factor tensors as transformers' `rope_parameters`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from steering.gguf.hyperparameters import Hyperparameters

DEFAULT_BASE = 10_000.0
FACTORS = "rope_freqs.weight"
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
ROPE_TENSORS = frozenset({FACTORS, LONG_FACTORS, SHORT_FACTORS})

# Llama 3.1's and 3.2's: low_freq_factor, high_freq_factor, original_max_position_embeddings.
_LLAMA3 = (1.0, 4.0, 8192)


def rope_parameters(given: Hyperparameters) -> dict[str, Any]:
    """`rope_parameters` of a model whose layers all rotate alike. Raises ModelLoadError."""
    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": given.get("rope.freq_base", float, DEFAULT_BASE),
    }
    rotated = given.get("rope.dimension_count", int, given.head_dim)
    if rotated != given.head_dim:
        rope["partial_rotary_factor"] = rotated / given.head_dim
    names = given.file.tensor_names
    if FACTORS in names:
        return rope | _factors(given, rope["rope_theta"], given.file.tensor(FACTORS))
    if LONG_FACTORS in names or SHORT_FACTORS in names:
        return rope | _longrope(given)
    return rope | _scaling(given)


def _scaling(given: Hyperparameters) -> dict[str, Any]:
    kind = given.get("rope.scaling.type", str, "none")
    if kind == "none":
        return {}
    factor = given.require("rope.scaling.factor", float)
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        original = given.require("rope.scaling.original_context_length", int)
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    raise given.file.error(f"{given.key('rope.scaling.type')} is {kind!r}, which is not supported")


def _longrope(given: Hyperparameters) -> dict[str, Any]:
    rope: dict[str, Any] = {
        "rope_type": "longrope",
        "long_factor": given.file.tensor(LONG_FACTORS).tolist(),
        "short_factor": given.file.tensor(SHORT_FACTORS).tolist(),
        "original_max_position_embeddings": given.require("rope.scaling.original_context_length", int),
    }
    if given.has("rope.scaling.attn_factor"):
        rope["attention_factor"] = given.require("rope.scaling.attn_factor", float)
    return rope


def _factors(given: Hyperparameters, base: float, factors: Tensor) -> dict[str, Any]:
    """The rope that divides each frequency by its own factor, `[rotated / 2]`.

    Files hold only the resulting factors. Llama 3's rule is recognised, since transformers computes longrope, which
    takes any factors, anew in each pass.
    """
    largest = float(factors.max())
    if torch.allclose(_llama3_factors(base, len(factors), largest), factors, rtol=1e-4):
        low, high, original = _LLAMA3
        return {
            "rope_type": "llama3",
            "factor": largest,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }
    return {
        "rope_type": "longrope",
        "long_factor": factors.tolist(),
        "short_factor": factors.tolist(),
        "attention_factor": 1.0,
        "original_max_position_embeddings": given.require("context_length", int),
    }


def _llama3_factors(base: float, count: int, factor: float) -> Tensor:
    """What Llama 3's rule divides each of `count` frequencies by."""
    low, high, original = _LLAMA3
    wavelengths = 2 * math.pi * base ** (torch.arange(count, dtype=torch.float64) / count)
    smooth = ((original / wavelengths - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).float()

"""The shapes of the benchmarks' models, and the options that choose them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config

QWEN_VOCABULARY = 151_936
LLAMA_VOCABULARY = 32_000
_CONTEXT = 8192


@dataclass(frozen=True, slots=True)
class Shapes:
    """A base over the delta's vocabulary, a base over another one, and the delta that steers both."""

    shared: PretrainedConfig
    crossed: PretrainedConfig
    delta: PretrainedConfig
    dtype: torch.dtype = torch.bfloat16


@dataclass(frozen=True, slots=True)
class Pair:
    """A base and the delta that steers it over one vocabulary, that of `tokenizer`."""

    base: PretrainedConfig
    delta: PretrainedConfig
    tokenizer: Any


def qwen2_half_billion(vocabulary: int = QWEN_VOCABULARY) -> Qwen2Config:
    """The shape of Qwen2-0.5B."""
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=896,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
        tie_word_embeddings=True,
        max_position_embeddings=_CONTEXT,
    )


def llama_seven_billion(vocabulary: int = LLAMA_VOCABULARY) -> LlamaConfig:
    """The shape of Llama-2-7B."""
    return LlamaConfig(vocab_size=vocabulary, max_position_embeddings=_CONTEXT)


def delta_fifteen_million() -> LlamaConfig:
    """The shape of the published 15M delta (Wu et al. 2024)."""
    return _delta(hidden=288, layers=6, heads=6, intermediate=768)


def delta_hundred_million() -> LlamaConfig:
    """The shape of the published 110M delta (Wu et al. 2024)."""
    return _delta(hidden=768, layers=12, heads=12, intermediate=2048)


def _delta(hidden: int, layers: int, heads: int, intermediate: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=LLAMA_VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=intermediate,
        tie_word_embeddings=True,
        max_position_embeddings=_CONTEXT,
    )


BASES: dict[str, Callable[[int], PretrainedConfig]] = {
    "qwen2-0.5b": qwen2_half_billion,
    "llama-7b": llama_seven_billion,
}
"""The choices of `--base`. Each takes the size of the vocabulary."""

DELTAS: dict[str, Callable[[], PretrainedConfig]] = {
    "15m": delta_fifteen_million,
    "110m": delta_hundred_million,
}
"""The choices of `--delta`."""


def named_shapes(base: str, delta: str) -> Shapes:
    """The shapes of these names: the base over Llama-2's vocabulary, which is the delta's, and over Qwen's."""
    return Shapes(BASES[base](LLAMA_VOCABULARY), BASES[base](QWEN_VOCABULARY), DELTAS[delta]())


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """Add `--base` and `--delta`."""
    parser.add_argument("--base", choices=BASES, default="qwen2-0.5b", help="the base's shape")
    parser.add_argument("--delta", choices=DELTAS, default="15m", help="the delta's shape")

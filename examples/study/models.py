"""The bases' and tiny models' architectures."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from examples.study.scale import Base

_POSITIONS = 1024
# Small models learn faster from weights that are drawn wider than the usual 0.02.
_SPREAD = 0.04


def new_model(base: Base, tokenizer: Any, seed: int) -> Any:
    """An untrained model. Raises ValueError for an unknown architecture."""
    torch.manual_seed(seed)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return AutoModelForCausalLM.from_config(_config(base, len(tokenizer), special), dtype=torch.float32)


def _config(base: Base, tokens: int, special: dict[str, int]) -> PreTrainedConfig:
    if base.architecture == "gpt2":
        return GPT2Config(
            vocab_size=tokens,
            n_positions=_POSITIONS,
            n_embd=base.width,
            n_layer=base.layers,
            n_head=base.heads,
            initializer_range=_SPREAD,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **special,
        )
    shared: dict[str, Any] = {
        "vocab_size": tokens,
        "hidden_size": base.width,
        "num_hidden_layers": base.layers,
        "num_attention_heads": base.heads,
        "max_position_embeddings": _POSITIONS,
        "tie_word_embeddings": True,
        "initializer_range": _SPREAD,
        **special,
    }
    if base.architecture == "gpt_neox":
        # Rotary embedding usually takes a quarter of a head. A quarter of these small heads does not tell positions.
        rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
        return GPTNeoXConfig(**shared, intermediate_size=4 * base.width, rope_parameters=rope)
    kinds: dict[str, type[PreTrainedConfig]] = {"llama": LlamaConfig, "qwen2": Qwen2Config}
    if base.architecture not in kinds:
        raise ValueError(f"no architecture {base.architecture}")
    heads = base.heads if base.architecture == "llama" else max(1, base.heads // 2)
    return kinds[base.architecture](**shared, intermediate_size=3 * base.width, num_key_value_heads=heads)

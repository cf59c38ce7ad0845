"""The supported architectures: how each names its tensors, what the converter did to them, and its own settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from steering.gguf.hyperparameters import Hyperparameters
from steering.gguf.rope import DEFAULT_BASE, rope_parameters

Settings = Callable[[Hyperparameters], dict[str, Any]]
Restore = Callable[[str, Tensor, Any], Tensor]

# The names of a layer's modules, GGUF's and transformers'.
_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_GATED_MLP = {
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_LLAMA = {**_ATTENTION, **_GATED_MLP, "ffn_norm": "post_attention_layernorm"}
_GEMMA2 = {
    **_ATTENTION,
    **_GATED_MLP,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PHI3 = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
_OLMO2 = {
    **_ATTENTION,
    **_GATED_MLP,
    **_HEAD_NORMS,
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """One value of `general.architecture`.

    `model_type`: transformers' name. `layer`: a layer's modules, GGUF's names to transformers'. `settings`: the
    configuration's fields beyond those that all have. `restore`: turns a tensor, given its module's GGUF name and the
    configuration, back into what it was before the converter to GGUF changed it.
    """

    model_type: str
    layer: Mapping[str, str]
    settings: Settings
    restore: Restore


def _unchanged(module: str, weight: Tensor, config: Any) -> Tensor:
    return weight


def _unpermuted(module: str, weight: Tensor, config: Any) -> Tensor:
    """Undo the order of rows that llama.cpp's rotation of neighbouring values needs; transformers rotates halves."""
    if module not in ("attn_q", "attn_k"):
        return weight
    heads = config.num_attention_heads if module == "attn_q" else config.num_key_value_heads
    halves: Tensor = weight.unflatten(0, (heads, -1, 2)).transpose(1, 2)
    return halves.flatten(0, 2)


def _minus_one(module: str, weight: Tensor, config: Any) -> Tensor:
    """Gemma multiplies by one plus a norm's weight; GGUF stores the sum."""
    return weight - 1 if module.endswith("norm") else weight


def _rotating(given: Hyperparameters) -> dict[str, Any]:
    return {"rope_parameters": rope_parameters(given)}


def _llama(given: Hyperparameters) -> dict[str, Any]:
    names = given.file.tensor_names
    return {
        "rope_parameters": rope_parameters(given),
        "attention_bias": "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_up.bias" in names,
    }


def _granite(given: Hyperparameters) -> dict[str, Any]:
    return {
        **_llama(given),
        "embedding_multiplier": given.get("embedding_scale", float, 1.0),
        "residual_multiplier": given.get("residual_scale", float, 1.0),
        "attention_multiplier": given.get("attention.scale", float, given.head_dim**-0.5),
        "logits_scaling": given.get("logit_scale", float, 1.0),
    }


def _phi3(given: Hyperparameters) -> dict[str, Any]:
    return {
        "rope_parameters": {"partial_rotary_factor": 1.0, **rope_parameters(given)},
        # 0 stands for none.
        "sliding_window": given.get("attention.sliding_window", int, 0) or None,
    }


def _gemma2(given: Hyperparameters) -> dict[str, Any]:
    return {
        "rope_parameters": rope_parameters(given),
        "sliding_window": given.get("attention.sliding_window", int, 4096),
        "layer_types": _layer_types(given, every=2),
        "query_pre_attn_scalar": _query_scalar(given, largest=46),
        "attn_logit_softcapping": given.get("attn_logit_softcapping", float, 50.0),
        "final_logit_softcapping": given.get("final_logit_softcapping", float, 30.0),
    }


def _gemma3(given: Hyperparameters) -> dict[str, Any]:
    local = {"rope_type": "default", "rope_theta": given.get("rope.freq_base_swa", float, DEFAULT_BASE)}
    return {
        "rope_parameters": {"full_attention": rope_parameters(given), "sliding_attention": local},
        "sliding_window": given.require("attention.sliding_window", int),
        "layer_types": _layer_types(given, every=6),
        "query_pre_attn_scalar": _query_scalar(given, largest=62),
    }


def _query_scalar(given: Hyperparameters, largest: int) -> int:
    """The number whose root divides the attention's scores. No field has it; the 27B models have their own."""
    if given.layers == largest:
        return given.require("embedding_length", int) // given.uniform("attention.head_count")
    return given.head_dim


def _layer_types(given: Hyperparameters, every: int) -> list[str]:
    """Which layers attend to a sliding window: all but every so many, or those that the file lists."""
    pattern = given.field("attention.sliding_window_pattern")
    if isinstance(pattern, int):
        every = pattern
    if isinstance(pattern, list):
        if len(pattern) != given.layers:
            raise given.file.error(
                f"{given.key('attention.sliding_window_pattern')} has {len(pattern)} entries for {given.layers} layers"
            )
        sliding = [bool(entry) for entry in pattern]
    else:
        sliding = [every == 0 or layer % every < every - 1 for layer in range(given.layers)]
    return ["sliding_attention" if entry else "full_attention" for entry in sliding]


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", _LLAMA, _llama, _unpermuted),
    "qwen2": Architecture("qwen2", _LLAMA, _rotating, _unchanged),
    "qwen3": Architecture("qwen3", {**_LLAMA, **_HEAD_NORMS}, _rotating, _unchanged),
    "gemma": Architecture("gemma", _LLAMA, _rotating, _minus_one),
    "gemma2": Architecture("gemma2", _GEMMA2, _gemma2, _minus_one),
    "gemma3": Architecture("gemma3_text", {**_GEMMA2, **_HEAD_NORMS}, _gemma3, _minus_one),
    "phi3": Architecture("phi3", _PHI3, _phi3, _unchanged),
    "granite": Architecture("granite", _LLAMA, _granite, _unpermuted),
    "olmo2": Architecture("olmo2", _OLMO2, _rotating, _unchanged),
}

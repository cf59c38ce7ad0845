"""Tiny models and their tokenizers as GGUF files, written as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

# The rows of the larger matrices must be whole blocks of 256 for the k-quants.
_SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}
_WINDOW = 16
_OWN: Mapping[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "gemma": {"head_dim": 64},
    "gemma2": {
        "head_dim": 64,
        "query_pre_attn_scalar": 64,
        "sliding_window": _WINDOW,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 10.0,
    },
    "gemma3": {
        "head_dim": 64,
        "num_hidden_layers": 7,
        "query_pre_attn_scalar": 64,
        "sliding_window": _WINDOW,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    },
    "phi3": {"pad_token_id": None},
    "granite": {
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.1,
        "logits_scaling": 2.0,
    },
    "olmo2": {},
}
ARCHITECTURES = tuple(_OWN)
_MODEL_TYPES = {"gemma3": "gemma3_text"}
_ALWAYS_TIED = ("gemma", "gemma2", "gemma3")
VARIANTS = tuple(
    (architecture, tied)
    for architecture in ARCHITECTURES
    for tied in (False, True)
    if tied or architecture not in _ALWAYS_TIED
)
"""Every architecture with tied and untied output embeddings; Gemma's are always tied."""

_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_FOUR_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_WITH_FOUR_NORMS = ("gemma2", "gemma3", "olmo2")
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)


def tiny_gguf_model(
    architecture: str, vocab_size: int, *, tied: bool = False, seed: int = 0, **settings: Any
) -> PreTrainedModel:
    """A random float32 model of an architecture as GGUF names it."""
    config = AutoConfig.for_model(
        _MODEL_TYPES.get(architecture, architecture),
        **(
            {"vocab_size": vocab_size, "tie_word_embeddings": tied, "bos_token_id": 1, "eos_token_id": 2}
            | _SHAPE
            | _OWN[architecture]
            | settings
        ),
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.1 * noise)
            else:
                parameter.copy_(0.08 * noise)
    return model.eval()


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    architecture: str = "llama",
    pre: str = "gpt-2",
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    fields: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray[Any, Any]] | None = None,
    without: Sequence[str] = (),
) -> Path:
    """Write a model and its tokenizer to `path`; matrices are quantised to `kind` where their rows are whole blocks.

    `fields` and `tensors` are added, or replace what would be written; fields in `without` are left out.
    """
    writer = gguf.GGUFWriter(path, architecture)
    given = {
        **_shape_fields(model.config, architecture),
        **_tokenizer_fields(tokenizer, model.config.vocab_size, pre),
        **(fields or {}),
    }
    for key, value in given.items():
        if key not in without:
            _add_field(writer, key, value)
    stored = {name: weight.numpy() for name, weight in converted(model, architecture).items()}
    for name, values in {**stored, **(tensors or {})}.items():
        _add_tensor(writer, name, values, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def converted(model: PreTrainedModel, architecture: str) -> dict[str, Tensor]:
    """A model's weights under GGUF's names, changed as llama.cpp's converter changes them."""
    names = {**_LAYER, **(_FOUR_NORMS if architecture in _WITH_FOUR_NORMS else {})}
    config = model.config
    weights = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        module, _, part = name.rpartition(".")
        if module in _OUTER:
            stored = f"{_OUTER[module]}.{part}"
        else:
            _, _, layer, inner = module.split(".", 3)
            stored = f"blk.{layer}.{names[inner]}.{part}"
        if architecture in ("llama", "granite") and ".attn_q." in stored:
            weight = _neighbours(weight, config.num_attention_heads)
        if architecture in ("llama", "granite") and ".attn_k." in stored:
            weight = _neighbours(weight, config.num_key_value_heads)
        if architecture.startswith("gemma") and module.endswith("norm"):
            weight = weight + 1
        weights[stored] = weight.contiguous()
    return weights


def _neighbours(weight: Tensor, heads: int) -> Tensor:
    """Rows in the order in which llama.cpp rotates them: neighbours instead of halves."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def _shape_fields(config: Any, architecture: str) -> dict[str, Any]:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    main = rope.get("full_attention", rope)
    fields: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(main["rope_theta"]),
        "rope.dimension_count": int(head_dim * (main.get("partial_rotary_factor") or 1)),
    }
    if main["rope_type"] in ("linear", "yarn"):
        fields |= {"rope.scaling.type": main["rope_type"], "rope.scaling.factor": float(main["factor"])}
    if main["rope_type"] in ("yarn", "longrope"):
        fields["rope.scaling.original_context_length"] = main["original_max_position_embeddings"]
    if architecture.startswith(("gemma2", "gemma3")):
        fields["attention.sliding_window"] = config.sliding_window
    if architecture == "gemma2":
        fields["attn_logit_softcapping"] = float(config.attn_logit_softcapping)
        fields["final_logit_softcapping"] = float(config.final_logit_softcapping)
    if architecture == "granite":
        fields |= {
            "embedding_scale": float(config.embedding_multiplier),
            "residual_scale": float(config.residual_multiplier),
            "attention.scale": float(config.attention_multiplier),
            "logit_scale": float(config.logits_scaling),
        }
    return {f"{architecture}.{name}": value for name, value in fields.items()}


def _tokenizer_fields(tokenizer: PreTrainedTokenizerFast, size: int, pre: str) -> dict[str, Any]:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {entry["id"]: entry for entry in state["added_tokens"]}
    ids = {token: text for text, token in tokenizer.get_vocab().items()}
    pieces = bool(state["model"]["byte_fallback"])
    texts, types = [], []
    for token in range(size):
        text = ids.get(token, f"[PAD{token}]")
        kind = _NORMAL if token in ids else _UNUSED
        if token in added:
            kind = _CONTROL if added[token]["special"] else _USER_DEFINED
            kind = _UNKNOWN if text == "<unk>" else kind
        elif pieces and text.startswith("<0x"):
            kind = _BYTE
        texts.append(text)
        types.append(kind)
    merges = [" ".join(pair) for pair in state["model"]["merges"]]
    fields: dict[str, Any] = {
        "general.name": "tiny",
        "tokenizer.ggml.model": "llama" if pieces else "gpt2",
        "tokenizer.ggml.pre": "default" if pieces else pre,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": types,
        "tokenizer.chat_template": tokenizer.chat_template,
        "tokenizer.ggml.add_bos_token": tokenizer.encode("a")[0] == tokenizer.bos_token_id,
    }
    if pieces:
        ranks = {merge.replace(" ", ""): rank for rank, merge in reversed(list(enumerate(merges)))}
        fields["tokenizer.ggml.scores"] = [-float(ranks.get(text, len(merges))) for text in texts]
    else:
        fields["tokenizer.ggml.merges"] = merges
    for name in ("bos", "eos", "unk"):
        token_id = getattr(tokenizer, f"{name}_token_id")
        if token_id is not None:
            fields[f"tokenizer.ggml.{'unknown' if name == 'unk' else name}_token_id"] = token_id
    return {key: value for key, value in fields.items() if value is not None}


def _add_field(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, values: np.ndarray[Any, Any], kind: gguf.GGMLQuantizationType
) -> None:
    block = gguf.GGML_QUANT_SIZES[kind][0]
    if values.ndim < 2 or values.shape[-1] % block:
        writer.add_tensor(name, values.astype(np.float32))
        return
    writer.add_tensor(name, gguf.quantize(values.astype(np.float32), kind), raw_dtype=kind)

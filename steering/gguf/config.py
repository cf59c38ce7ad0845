"""A model's transformers configuration, from a GGUF file's fields."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from steering.gguf.architectures import ARCHITECTURES, Architecture
from steering.gguf.file import GgufFile
from steering.gguf.hyperparameters import Hyperparameters
from steering.gguf.token_table import END_IDS

# Fields that change what a model computes, with the values at which they change nothing. An architecture whose settings
# read one may have any value of it.
_NEUTRAL: dict[str, Any] = {
    "attention.causal": True,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "attention.scale": 0.0,
    "embedding_scale": 1.0,
    "expert_count": 0,
    "logit_scale": 1.0,
    "residual_scale": 1.0,
    "rope.scale_linear": 1.0,
}
_READ_BY = {"granite": frozenset({"attention.scale", "embedding_scale", "logit_scale", "residual_scale"})}


def architecture_of(file: GgufFile) -> Architecture:
    """The file's architecture. Raises ModelLoadError for one that is not supported."""
    found = ARCHITECTURES.get(file.architecture)
    if found is None:
        raise file.error(
            f"general.architecture is {file.architecture!r}; supported are {', '.join(sorted(ARCHITECTURES))}"
        )
    return found


def model_config(file: GgufFile) -> Any:
    """The configuration of the model in a file. Raises ModelLoadError that names the field at fault."""
    architecture = architecture_of(file)
    given = Hyperparameters(file)
    _check_refused(given)
    if given.get("attention.value_length", int, given.head_dim) != given.head_dim:
        raise file.error(f"{given.key('attention.value_length')} differs from the key length")
    heads = given.uniform("attention.head_count")
    settings = {
        "vocab_size": file.shape("token_embd.weight")[0],
        "hidden_size": given.require("embedding_length", int),
        "intermediate_size": given.uniform("feed_forward_length"),
        "num_hidden_layers": given.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": given.uniform("attention.head_count_kv", heads),
        "head_dim": given.head_dim,
        "max_position_embeddings": given.require("context_length", int),
        "rms_norm_eps": given.require("attention.layer_norm_rms_epsilon", float),
        "tie_word_embeddings": "output.weight" not in file.tensor_names,
        "architectures": None,
        **_token_ids(file),
        **architecture.settings(given),
    }
    return AutoConfig.for_model(architecture.model_type, **settings)


def _check_refused(given: Hyperparameters) -> None:
    read = _READ_BY.get(given.file.architecture, frozenset())
    for name, neutral in _NEUTRAL.items():
        if name not in read and given.field(name) not in (None, neutral):
            raise given.file.error(f"{given.key(name)} is {given.field(name)!r}, which is not supported")


def _token_ids(file: GgufFile) -> dict[str, Any]:
    ends = [file.require(key, int) for key in END_IDS if file.has(key)]
    ids: dict[str, Any] = {"bos_token_id": None, "pad_token_id": None}
    for name, key in (("bos_token_id", "bos_token_id"), ("pad_token_id", "padding_token_id")):
        if file.has(f"tokenizer.ggml.{key}"):
            ids[name] = file.require(f"tokenizer.ggml.{key}", int)
    return {**ids, "eos_token_id": sorted(set(ends)) or None}

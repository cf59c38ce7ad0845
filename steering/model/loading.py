"""Loading a decoder, base or tiny, to run on the engine's paged attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mapping_cache import CanonicalVocabulary, UnsupportedTokenizerError, canonical_vocabulary
from steering.errors import ModelLoadError
from steering.gguf.config import model_config
from steering.gguf.file import GgufFile, open_gguf
from steering.gguf.tokenizer import gguf_tokenizer
from steering.gguf.weights import read_weights
from steering.model.attention_check import adopt_paged_attention
from steering.model.forward import TransformersForward
from steering.model.loaded_model import LoadedModel
from steering.model.tokenizer_files import SharedTokenizers, loading_options, read_tokenizer

__all__ = ["LoadedModel", "choose_device", "load_model", "read_trainable"]

# The limit for configurations that have none (ALiBi, some RoPE models).
FALLBACK_MAX_MODEL_LEN = 4096
_LENGTH_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")


def choose_device(device: str) -> torch.device:
    """The torch device of that name; `auto` is the first GPU, or the CPU where there is none."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def load_model(
    path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    progress: Callable[[str], None] | None = None,
    shared: SharedTokenizers | None = None,
) -> LoadedModel:
    """Load a local folder or Hugging Face id, safetensors only and never remote code, or a GGUF file.

    `dtype`: `auto` (the configuration's; for a GGUF file see `steering.gguf.weights`), `float32`, `bfloat16` or
    `float16`. `progress`: called with the name of each stage. `shared`: a cache of tokenizers to read from and add to;
    its models must be local.
    Raises ModelLoadError with the reason when a file or weight is missing, the parts do not fit together, or the model
    cannot run on paged attention.
    """
    name = str(path)
    tell = progress or (lambda stage: None)
    tell("reading the tokenizer")
    gguf = open_gguf(name)
    config = _attempt(name, "configuration", lambda: _read_config(name, gguf))
    if "/" in str(config._attn_implementation or ""):
        raise ModelLoadError(
            f"{name}: its configuration names an attention kernel, which is code to be fetched"
        )
    tokenizer = _attempt(name, "tokenizer", lambda: _read_tokenizer(name, gguf, shared))
    tell("reading the weights")
    model = _attempt(name, "weights", lambda: _read_weights(name, gguf, config, dtype))
    place = choose_device(device)
    model = _attempt(name, "weights", lambda: model.to(place)).eval().requires_grad_(False)
    vocab_size = _vocab_size(name, model)
    vocabulary = _vocabulary(name, tokenizer, vocab_size, shared)
    loaded = LoadedModel(
        path=name,
        model=model,
        forward=TransformersForward(model),
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        vocab_size=vocab_size,
        max_model_len=_max_model_len(config),
        eos_token_ids=_eos_token_ids(tokenizer, model, vocabulary),
        device=place,
        dtype=next(model.parameters()).dtype,
    )
    tell("checking the attention")
    adopted = adopt_paged_attention(loaded)
    _detach_from_files(model)
    return adopted


def read_trainable(name: str) -> Any:
    """A model in float32 as transformers has it, on the CPU, to be trained and not served.

    Raises OSError, ValueError or ModelLoadError where it cannot be read.
    """
    gguf = open_gguf(name)
    if gguf is None:
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    return _read_weights(name, gguf, model_config(gguf), "float32")


def _attempt(name: str, what: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ModelLoadError:
        raise
    except Exception as error:  # transformers and safetensors may raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelLoadError(f"{name}: cannot load the {what}: {reason}") from error


def _read_config(name: str, gguf: GgufFile | None) -> Any:
    return model_config(gguf) if gguf else AutoConfig.from_pretrained(name, **loading_options(name))


def _read_tokenizer(name: str, gguf: GgufFile | None, shared: SharedTokenizers | None) -> Any:
    if shared:
        return shared.tokenizer(name)
    return gguf_tokenizer(gguf) if gguf else read_tokenizer(name)


def _read_weights(name: str, gguf: GgufFile | None, config: Any, dtype: str) -> Any:
    if gguf is not None:
        model, report = read_weights(gguf, config, dtype)
    else:
        model, report = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, use_safetensors=True, output_loading_info=True, **loading_options(name)
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(f"{len(missing)} weights are missing, {missing[0]} among them")
    for key, weight in model.state_dict().items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise ValueError(f"{key} holds NaN or infinite values")
    return model


def _detach_from_files(model: torch.nn.Module) -> None:
    """Copy the tensors left in the model: one small tensor keeps the whole weights file mapped in memory."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def _vocab_size(name: str, model: Any) -> int:
    head = model.get_output_embeddings()
    if head is None:
        raise ModelLoadError(f"{name}: not a causal language model (it has no output embeddings)")
    return int(head.weight.shape[0])


def _vocabulary(
    name: str, tokenizer: Any, vocab_size: int, shared: SharedTokenizers | None
) -> CanonicalVocabulary:
    if len(tokenizer) > vocab_size:
        raise ModelLoadError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens but the model scores only {vocab_size}"
        )
    try:
        return (shared.vocabulary if shared else canonical_vocabulary)(tokenizer, vocab_size)
    except UnsupportedTokenizerError as error:
        raise ModelLoadError(f"{name}: {error}") from error


def _max_model_len(config: Any) -> int:
    text = config.get_text_config()
    lengths = [getattr(text, field, None) for field in _LENGTH_FIELDS]
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        # Beyond this length such a model rotates *all* positions by other factors, those of other rows included.
        lengths.insert(0, rope.get("original_max_position_embeddings"))
    return next((int(length) for length in lengths if length), FALLBACK_MAX_MODEL_LEN)


def _eos_token_ids(tokenizer: Any, model: Any, vocabulary: CanonicalVocabulary) -> frozenset[int]:
    """All ids that end a generation: the tokenizer's, the generation config's and the end-of-turn tokens."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = set(configured if isinstance(configured, list) else [configured])
    ids.add(tokenizer.eos_token_id)
    ids |= vocabulary.roles.get("eos", frozenset())
    return frozenset(i for i in ids if i is not None)

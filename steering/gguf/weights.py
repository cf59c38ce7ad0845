"""A model with its weights, from a GGUF file's tensors."""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from steering.gguf.architectures import Architecture
from steering.gguf.config import architecture_of
from steering.gguf.file import GgufFile
from steering.gguf.rope import ROPE_TENSORS

_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_NAME = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<module>\w+)\.(?P<part>weight|bias)")


def read_weights(file: GgufFile, config: Any, dtype: str) -> tuple[Any, dict[str, Any]]:
    """The model of a configuration with the file's weights, and transformers' report of how they were loaded.

    `dtype`: `float32`, `bfloat16`, `float16`, or `auto`: float32 for a file with nothing else, bfloat16 for every
    other, because float16 does not hold the activations of all architectures.
    Raises ModelLoadError for a tensor that the architecture does not have, or whose shape is not the one that the
    fields give.
    """
    if dtype == "auto":
        dtype = "float32" if file.keeps_float32 else "bfloat16"
    kind: torch.dtype = getattr(torch, dtype)
    architecture = architecture_of(file)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(weight.shape) for name, weight in empty.state_dict().items()}
    weights = {}
    for stored in sorted(file.tensor_names - ROPE_TENSORS):
        module, name = _names(file, stored, architecture)
        # transformers would make a random weight of the shape that the fields ask for, however large.
        if name in shapes and file.shape(stored) != shapes[name]:
            raise file.error(f"the tensor {stored} is {file.shape(stored)}, the fields say {shapes[name]}")
        weights[name] = architecture.restore(module, file.tensor(stored), config).to(kind)
    return type(empty).from_pretrained(  # type: ignore[no-any-return]
        None, config=config, state_dict=weights, dtype=kind, output_loading_info=True
    )


def _names(file: GgufFile, stored: str, architecture: Architecture) -> tuple[str, str]:
    """A tensor's module in GGUF, and its whole name in transformers."""
    match = _NAME.fullmatch(stored)
    module = match["module"] if match else ""
    names = _OUTER if match and match["layer"] is None else architecture.layer
    if match is None or module not in names:
        raise file.error(f"the tensor {stored} is unknown in the architecture {file.architecture!r}")
    layer = "" if match["layer"] is None else f"model.layers.{match['layer']}."
    return module, f"{layer}{names[module]}.{match['part']}"

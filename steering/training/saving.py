"""Writes a trained model as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_LARGEST = torch.finfo(torch.float16).max


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights and tokenizer to `folder`, readable by every user; the model is moved to float32.

    Weights are float16 on disk, or float32 if one exceeds float16's range. The configuration says float32 either way,
    so that they load as float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if all(float(weight.detach().abs().max()) < _LARGEST for weight in model.parameters() if weight.numel()):
        model.to(torch.float16)
    model.save_pretrained(folder)
    model.to(torch.float32)
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o644)  # safetensors lets only the owner read its files

"""Controls that steering must beat: adapters and maps whose content is shuffled."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from mapping_cache import SAMPLE_TEXTS, VocabularyMap
from steering.adapters import Adapter, load_adapter
from steering.errors import AdapterLoadError
from steering.gguf.location import gguf_file

# The length of the sample text, which must fit any steering model's context under any tokenizer.
_SAMPLE_CHARACTERS = 480


def random_adapter(adapter: Adapter, seed: int) -> tuple[Adapter, float]:
    """The adapter with shuffled weights, and the factor on its alpha that makes its shift as large as before.

    In a delta, the entries of each weight matrix are shuffled; in a pair, the entries of the difference that tuning
    made to each of the expert's weights. Shuffled weights give a shift of another size, so the factor is the ratio of
    the shifts' spreads over the vocabulary on a sample text. Raises `AdapterLoadError` for a pair whose models' weights
    differ in shape, and for models in GGUF files, since the shuffled weights are written as safetensors.
    """
    if any(gguf_file(model.path) for model in adapter.models):
        raise AdapterLoadError("the weights of GGUF files cannot be shuffled")
    generator = torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as parent:
        copy = Path(parent) / adapter.path.name
        shutil.copytree(adapter.path, copy)
        folders = [copy / Path(model.path).relative_to(adapter.path.resolve()) for model in adapter.models]
        first, *others = folders
        meant = _spread(adapter, folders)
        before = _read(others[0]) if others else {}
        weights = {}
        for name, weight in _read(first).items():
            start = before.get(name, torch.zeros_like(weight)) if others else torch.zeros_like(weight)
            if start.shape != weight.shape:
                raise AdapterLoadError(f"{name} has other shapes in the expert and in the anti-expert")
            keep = not others and weight.ndim < 2
            weights[name] = weight if keep else start + _shuffled(weight - start, generator)
        _write(first, weights)
        model = adapter.models[0]
        dtype = str(model.dtype).removeprefix("torch.")
        drawn = load_adapter(adapter.name, copy, device=str(model.device), dtype=dtype)
        found = _spread(adapter, folders)
    return replace(drawn, path=adapter.path), meant / found if found else 1.0


def shuffled_map(vocabulary_map: VocabularyMap, seed: int) -> VocabularyMap:
    """The map with the same base tokens matched, and their steering tokens shuffled."""
    ids = vocabulary_map.ids.copy()
    matched = np.flatnonzero(ids >= 0)
    order = list(range(len(matched)))
    random.Random(seed).shuffle(order)
    ids[matched] = ids[matched][order]
    fingerprint = f"{vocabulary_map.fingerprint}-shuffled-{seed}"
    return replace(vocabulary_map, ids=ids, nearest=ids.copy(), fingerprint=fingerprint)


@torch.no_grad()
def _spread(adapter: Adapter, folders: Sequence[Path]) -> float:
    """The shift's standard deviation over the vocabulary, averaged over the positions of a sample text."""
    first = adapter.models[0]
    text = "\n".join(SAMPLE_TEXTS.values())[:_SAMPLE_CHARACTERS]
    ids = first.tokenizer(text, add_special_tokens=False)["input_ids"][: first.max_model_len]
    logits = [
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(torch.tensor([ids])).logits[0]
        for folder in folders
    ]
    return float(adapter.rule.shift(logits).std(-1).mean())


def _shuffled(values: Tensor, generator: torch.Generator) -> Tensor:
    """All entries of a tensor in random order, in the same shape."""
    order = torch.randperm(values.numel(), generator=generator)
    return values.flatten()[order].view_as(values)


def _read(folder: Path) -> dict[str, Tensor]:
    """All weights of a model folder as float32, from one file or several."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: weight.float() for file in files for name, weight in load_file(file).items()}


def _write(folder: Path, weights: dict[str, Tensor]) -> None:
    """Replace the weights of a model folder by one file."""
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")):
        file.unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

"""Loading a model: its attributes, and the folders that are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MambaConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from steering.errors import ModelLoadError
from steering.model.loading import load_model
from tests.models import ARCHITECTURES, save_folder
from tests.steering.support import Tiny, Workshop, tokenizer_of


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_a_loaded_model_knows(workshop: Workshop, arch: str) -> None:
    loaded = workshop.loaded(Tiny(arch, "bl", padding=3))
    tokenizer = tokenizer_of("bl")
    assert loaded.vocab_size == len(tokenizer) + 3 == len(loaded.vocabulary)
    assert loaded.max_model_len == 256
    assert loaded.dtype == torch.float32
    # The end-of-turn token ends a text as well, though it is recognised by its name alone.
    assert loaded.eos_token_ids == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_a_model_without_the_attention_function_is_refused(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("bl")
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4)
    folder = save_folder(tmp_path / "mamba", AutoModelForCausalLM.from_config(config), tokenizer)
    with pytest.raises(ModelLoadError, match="attention"):
        load_model(folder, device="cpu")


def test_missing_weights_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    folder = shutil.copytree(workshop.folder(Tiny("llama", "sp")), tmp_path / "a")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match="missing"):
        load_model(folder, device="cpu")


def test_weights_that_are_no_numbers_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    folder = shutil.copytree(workshop.folder(Tiny("llama", "sp")), tmp_path / "a")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"model\.norm\.weight"):
        load_model(folder, device="cpu")


def test_a_tokenizer_larger_than_the_model_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    folder = shutil.copytree(workshop.folder(Tiny("llama", "bl")), tmp_path / "a")
    tokenizer_of("sp").save_pretrained(folder)
    with pytest.raises(ModelLoadError, match="tokenizer"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_an_error_of_its_part(workshop: Workshop, tmp_path: Path, missing: str) -> None:
    folder = shutil.copytree(workshop.folder(Tiny("llama", "sp")), tmp_path / "a")
    (folder / missing).unlink()
    with pytest.raises(ModelLoadError, match=str(folder)):
        load_model(folder, device="cpu")

"""A model read from a GGUF file gives the same logits as the same weights read from safetensors."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import gguf
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from steering.engine.engine import Engine
from steering.model.loading import load_model, read_trainable
from tests.gguf_files import VARIANTS, converted, tiny_gguf_model, write_gguf
from tests.models import save_folder, tokenizer_byte_level, tokenizer_sentencepiece
from tests.steering.support import TOLERANCE, assert_close, request, run_alone

_QUANTISED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16")
# Longer than the sliding window of `tests.gguf_files`.
_TOKENS = torch.arange(5, 35)[None]


@cache
def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    return tokenizer_sentencepiece() if kind == "sp" else tokenizer_byte_level()


def _logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=_TOKENS).logits
    return logits


@pytest.mark.parametrize(("architecture", "tied"), VARIANTS)
def test_every_architecture_keeps_its_logits(tmp_path: Path, architecture: str, tied: bool) -> None:
    tokenizer = _tokenizer("bl")
    model = tiny_gguf_model(architecture, len(tokenizer), tied=tied)
    path = write_gguf(tmp_path / "model.gguf", model, tokenizer, architecture=architecture)
    found = _logits(read_trainable(str(path)).eval())
    expected = _logits(model)
    assert (found - expected).abs().max() <= TOLERANCE
    assert expected.std() > 0.1


@pytest.mark.parametrize("name", _QUANTISED)
def test_quantised_weights_are_those_that_the_file_stands_for(tmp_path: Path, name: str) -> None:
    """The oracle is the gguf package: it quantises and dequantises each weight."""
    tokenizer = _tokenizer("bl")
    model = tiny_gguf_model("qwen2", len(tokenizer))
    kind = gguf.GGMLQuantizationType[name]
    path = write_gguf(tmp_path / "model.gguf", model, tokenizer, architecture="qwen2", kind=kind)
    loaded = read_trainable(str(path))
    found = converted(loaded, "qwen2")
    for stored, weight in converted(model, "qwen2").items():
        expected = weight.numpy()
        if weight.dim() > 1:
            expected = gguf.dequantize(gguf.quantize(expected, kind), kind)
        assert torch.equal(found[stored], torch.from_numpy(expected)), stored


@pytest.mark.parametrize("tokenizer_kind", ["sp", "bl"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "phi3"])
def test_the_engine_generates_the_same_from_a_file_as_from_a_folder(
    tmp_path: Path, architecture: str, tokenizer_kind: str
) -> None:
    tokenizer = _tokenizer(tokenizer_kind)
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = tiny_gguf_model(architecture, len(tokenizer), **special)
    folder = save_folder(tmp_path / "folder", model, tokenizer)
    file = write_gguf(tmp_path / "model.gguf", model, tokenizer, architecture=architecture)
    prompt = tokenizer.encode("The ferry left the harbour at nine, and the gulls went with it.")
    results, vocabularies = [], []
    for path in (folder, file):
        loaded = load_model(path, device="cpu", dtype="float32")
        results.append(run_alone(Engine(loaded), request("row", prompt, count=24)))
        vocabularies.append(
            (loaded.vocabulary.fingerprint, loaded.eos_token_ids, loaded.tokenizer.chat_template)
        )
    expected, found = results
    assert vocabularies[0] == vocabularies[1]
    assert len(expected.tokens) == 24
    assert found.tokens == expected.tokens
    assert_close(found.logprobs, expected.logprobs)

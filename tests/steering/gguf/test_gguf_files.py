"""GGUF files: their tokenizers split text as the originals do, and a bad file is an error that names what is wrong."""

from __future__ import annotations

import contextlib
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from mapping_cache import canonical_vocabulary
from steering.adapters import load_adapter
from steering.errors import ModelLoadError
from steering.model.loading import load_model
from steering.model.tokenizer_files import read_tokenizer
from tests.gguf_files import tiny_gguf_model, write_gguf
from tests.models import tokenizer_byte_level, tokenizer_sentencepiece

_SPECIALS = ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|im_end|>")


@cache
def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    return tokenizer_sentencepiece() if kind == "sp" else tokenizer_byte_level()


def _write(path: Path, kind: str = "bl", **options: Any) -> Path:
    tokenizer = _tokenizer(kind)
    return write_gguf(path, tiny_gguf_model("llama", len(tokenizer)), tokenizer, **options)


@pytest.fixture(scope="module", params=["sp", "bl"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A tokenizer and its copy from a GGUF file."""
    path = _write(tmp_path_factory.mktemp("gguf") / "model.gguf", request.param)
    return _tokenizer(request.param), read_tokenizer(str(path))


@given(
    pieces=st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=12),
            st.sampled_from([*_SPECIALS, "The ferry", "it's", "10,000", "  ", "\n\n"]),
        ),
        max_size=6,
    )
)
def test_a_file_tokenizes_as_the_original(both: tuple[Any, Any], pieces: list[str]) -> None:
    original, copy = both
    text = "".join(pieces)
    tokens = original.encode(text)
    assert copy.encode(text) == tokens
    assert copy.decode(tokens) == original.decode(tokens)


def test_a_file_has_the_vocabulary_and_the_template_of_the_original(both: tuple[Any, Any]) -> None:
    original, copy = both
    size = len(original)
    assert canonical_vocabulary(copy, size) == canonical_vocabulary(original, size)
    chat = [{"role": "user", "content": "Is the bridge closed?"}]
    assert copy.apply_chat_template(chat, tokenize=False) == original.apply_chat_template(
        chat, tokenize=False
    )


def test_a_folder_with_one_file_stands_for_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path / "model.gguf")
    assert load_model(tmp_path, device="cpu").vocabulary == load_model(path, device="cpu").vocabulary
    shutil.copy(path, tmp_path / "other.gguf")
    with pytest.raises(ModelLoadError, match="2 GGUF files; name one"):
        load_model(tmp_path, device="cpu")


def test_an_adapter_can_be_a_file(tmp_path: Path) -> None:
    _write(tmp_path / "delta.gguf")
    (tmp_path / "adapter.json").write_text(json.dumps({"kind": "delta", "model": "delta.gguf"}))
    adapter = load_adapter("style", tmp_path, device="cpu", dtype="float32")
    assert [Path(model.path).name for model in adapter.models] == ["delta.gguf"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pre": "unheard-of"}, "tokenizer.ggml.pre is 'unheard-of'; supported are"),
        ({"without": ["tokenizer.ggml.pre"]}, "no field tokenizer.ggml.pre"),
        ({"without": ["tokenizer.ggml.tokens"]}, "no field tokenizer.ggml.tokens"),
        ({"without": ["llama.block_count"]}, "llama.block_count"),
        ({"fields": {"llama.block_count": "two"}}, "llama.block_count is 'two', not of type int"),
        ({"fields": {"llama.block_count": 3}}, "weights are missing"),
        ({"fields": {"llama.block_count": 2**31}}, "llama.block_count cannot be"),
        (
            {"fields": {"llama.feed_forward_length": 2**24}},
            "blk.0.ffn_down.weight is .256, 512., the fields say",
        ),
        ({"fields": {"tokenizer.ggml.model": "rwkv"}}, "tokenizer.ggml.model"),
        ({"fields": {"tokenizer.ggml.eos_token_id": 4000}}, "tokenizer.ggml.eos_token_id"),
        ({"fields": {"tokenizer.ggml.merges": ["th"]}}, "'th', which is not two tokens"),
        (
            {"fields": {"llama.rope.scaling.type": "spiral", "llama.rope.scaling.factor": 2.0}},
            "llama.rope.scaling.type",
        ),
        ({"tensors": {"blk.0.ssm_a.weight": np.zeros((4, 4))}}, "blk.0.ssm_a.weight is unknown"),
        ({"tensors": {"output_norm.weight": np.full(256, np.nan)}}, "NaN or infinite"),
    ],
)
def test_a_bad_file_is_refused_by_the_name_of_what_is_wrong(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    path = _write(tmp_path / "model.gguf", **options)
    with pytest.raises(ModelLoadError, match=message) as caught:
        load_model(path, device="cpu")
    assert str(path) in str(caught.value)


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    path = _write(tmp_path / "model.gguf", fields={"general.architecture": "mamba"})
    with pytest.raises(ModelLoadError, match=r"general\.architecture is 'mamba'; supported are"):
        load_model(path, device="cpu")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is no such file"):
        load_model(tmp_path / "missing.gguf", device="cpu")


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_an_error_and_nothing_else(
    damaged: tuple[bytes, int, Path], data: st.DataObject
) -> None:
    """Cut anywhere, or with a byte changed anywhere in its header."""
    whole, header, path = damaged
    if data.draw(st.booleans()):
        kept = data.draw(st.integers(0, len(whole) - 1))
        path.write_bytes(whole[:kept])
        with pytest.raises(ModelLoadError):
            load_model(path, device="cpu")
        return
    changed = bytearray(whole)
    place = data.draw(st.integers(0, header - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    with contextlib.suppress(ModelLoadError):
        load_model(path, device="cpu")  # a changed letter of a text may do no harm


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int, Path]:
    """A whole file's bytes, how many of them come before the tensors, and a path to write to."""
    path = _write(tmp_path_factory.mktemp("gguf") / "model.gguf")
    whole = path.read_bytes()
    weights = sum(p.numel() for p in tiny_gguf_model("llama", len(_tokenizer("bl"))).parameters()) * 4
    return whole, len(whole) - weights, path

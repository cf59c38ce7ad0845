"""Adapter folders: which ones load, and which are refused with a message that names the fault."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from steering.adapters import load_adapter
from steering.errors import AdapterLoadError
from steering.model import packed_linear
from tests.models import save_folder
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, request, run, tokenizer_of

SMALL = Tiny("llama", "sp", seed=41)
OTHER = Tiny("gpt2", "bl", seed=42)


def write(folder: Path, settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    text = settings if isinstance(settings, str) else json.dumps(settings)
    (folder / "adapter.json").write_text(text, encoding="utf-8")
    return folder


def test_a_plain_model_folder_is_a_delta(workshop: Workshop) -> None:
    adapter = load_adapter("plain", workshop.folder(SMALL), device="cpu")
    assert (adapter.name, adapter.kind, adapter.alpha, adapter.top_k) == ("plain", "delta", 1.0, None)
    assert len(adapter.models) == 1
    assert adapter.version


def test_an_adapter_that_nobody_uses_holds_its_tied_embedding_once(
    workshop: Workshop, make_engine: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizer_of("sp")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **shape)
    save_folder(tmp_path / "tied", AutoModelForCausalLM.from_config(config), tokenizer)
    adapter = load_adapter("tied", tmp_path / "tied", device="cpu")
    engine = make_engine(SMALL, adapter)
    packed: list[torch.Tensor] = []

    def counted(weight: torch.Tensor, bias: torch.Tensor | None) -> packed_linear.Product:
        packed.append(weight)
        return product(weight, bias)

    product = packed_linear.product
    monkeypatch.setattr(packed_linear, "product", counted)
    run(engine, [request("plain", [5, 6, 7])])
    assert not packed
    run(engine, [request("one", [5, 6, 7], "tied"), request("two", [5, 6], "tied")])
    assert len(packed) == 1


def test_settings_are_read(workshop: Workshop, tmp_path: Path) -> None:
    shutil.copytree(workshop.folder(SMALL), tmp_path / "a")
    settings = {"format": 1, "kind": "delta", "alpha": 0.5, "bridge": "map", "top_k": 7, "unmatched": "zero"}
    adapter = load_adapter("a", write(tmp_path / "a", settings), device="cpu")
    assert (adapter.alpha, adapter.bridge, adapter.top_k, adapter.neutral) == (0.5, "map", 7, False)


def test_a_version_is_its_files(workshop: Workshop, tmp_path: Path) -> None:
    first = shutil.copytree(workshop.folder(SMALL), tmp_path / "first")
    second = shutil.copytree(workshop.folder(SMALL), tmp_path / "second")
    versions = [load_adapter("a", folder, device="cpu").version for folder in (first, second)]
    assert versions[0] == versions[1]
    write(second, {"format": 1, "alpha": 0.9})
    assert load_adapter("a", second, device="cpu").version != versions[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("{", "adapter.json"),
        ([], "adapter.json must hold one JSON object"),
        ({"kind": "sail"}, "kind"),
        ({"kind": ["delta"]}, "kind"),
        ({"speed": 3}, "speed"),
        ({"expert": "x"}, "expert"),
        ({"format": 2}, "format"),
        ({"alpha": "1"}, "alpha"),
        ({"alpha": True}, "alpha"),
        ('{"alpha": NaN}', "alpha"),
        ({"alpha": None}, "alpha"),
        ({"bridge": ["map"]}, "bridge"),
        ({"unmatched": 3}, "unmatched"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"normalisation": "some"}, "normalisation"),
        ({"normalisation": ["base"]}, "normalisation"),
        ({"model": "nowhere"}, "nowhere"),
        ({"model": "../first"}, "../first"),
        ({"model": "/"}, "/"),
        ({"model": 5}, "5"),
        ({"kind": "proxy"}, "expert"),
    ],
)
def test_what_is_wrong_with_an_adapter_file_is_said(
    workshop: Workshop, tmp_path: Path, settings: Any, words: str
) -> None:
    shutil.copytree(workshop.folder(SMALL), tmp_path / "a")
    with pytest.raises(AdapterLoadError) as caught:
        load_adapter("a", write(tmp_path / "a", settings), device="cpu")
    assert words in str(caught.value)


def test_a_link_does_not_lead_out_of_the_folder(workshop: Workshop, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"format": 1, "model": "inside"})
    (folder / "inside").symlink_to(workshop.folder(SMALL))
    with pytest.raises(AdapterLoadError, match="inside"):
        load_adapter("a", folder, device="cpu")


def test_expert_and_antiexpert_share_a_vocabulary(workshop: Workshop, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"format": 1, "kind": "proxy"})
    shutil.copytree(workshop.folder(SMALL), folder / "expert")
    shutil.copytree(workshop.folder(OTHER), folder / "antiexpert")
    with pytest.raises(AdapterLoadError, match="vocabulary"):
        load_adapter("a", folder, device="cpu")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdapterLoadError, match="nothing-here"):
        load_adapter("a", tmp_path / "nothing-here")


def test_broken_weights_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    folder = shutil.copytree(workshop.folder(SMALL), tmp_path / "a")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(AdapterLoadError, match="weights"):
        load_adapter("a", folder, device="cpu")


def test_adapters_with_the_same_tokenizer_files_share_one(workshop: Workshop) -> None:
    one, other = (workshop.adapter(f"tab{seed}", Tiny("llama", "bl", seed=seed))[0] for seed in (61, 62))
    different = workshop.adapter("tab63", Tiny("llama", "sp", seed=63))[0]
    assert one.version != other.version
    assert one.models[0].tokenizer is other.models[0].tokenizer
    assert one.models[0].vocabulary is other.models[0].vocabulary
    assert one.models[0].tokenizer is not different.models[0].tokenizer
    assert workshop.loaded(Tiny("llama", "bl")).tokenizer is not one.models[0].tokenizer

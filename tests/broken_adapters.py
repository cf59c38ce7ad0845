"""Ways to break an adapter's folder, each with words that the error message must contain."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.models import save_folder, tiny_model, tokenizer_byte_level


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def name_another_model(folder: Path) -> None:
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(folder.parent / "steer")}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def spoil_settings(folder: Path) -> None:
    (folder / "adapter.json").write_text('{"alpha": NaN}')


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def put_nan(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[sorted(weights)[0]].view(-1)[3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def small_head(folder: Path) -> None:
    tokenizer = tokenizer_byte_level()
    save_folder(folder, tiny_model("llama", len(tokenizer) - 9, 4, {"eos_token_id": 3}), tokenizer)


def bring_code(folder: Path) -> None:
    (folder / "evil.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    edit_config(model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})(
        folder
    )


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (shutil.rmtree, "no such folder"),
    "empty": (empty, "configuration"),
    "weights missing": (lambda folder: (folder / "model.safetensors").unlink(), "weights"),
    "truncated": (truncate, "weights"),
    "pickled": (pickle, "weights"),
    "not a number": (put_nan, "NaN"),
    "other sizes": (edit_config(hidden_size=48), "weights"),
    "fewer scores than tokens": (small_head, "tokens"),
    "code": (bring_code, "custom code"),
    "kernel": (edit_config(attn_implementation="somebody/kernel"), "attention kernel"),
    "another model": (name_another_model, "PEFT"),
    "settings": (spoil_settings, "alpha"),
}

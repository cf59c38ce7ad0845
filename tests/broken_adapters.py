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


def edit_tokenizer(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "tokenizer.json"
        parts = json.loads(file.read_text())
        change(parts)
        file.write_text(json.dumps(parts))

    return edit


def drop_bytes(parts: dict[str, Any]) -> None:
    """A Unigram model without an unknown token, which covers what loading tries, and few other characters."""
    known = {*map(chr, range(1, 127)), *"naïve café 東京 🙂"}
    letters = [*([letter, -1.0] for letter in sorted(known)), ["<|endoftext|>", -3.0]]
    parts["model"] = {"type": "Unigram", "unk_id": None, "vocab": letters, "byte_fallback": False}
    parts["pre_tokenizer"] = parts["post_processor"] = None
    parts["added_tokens"] = [dict(parts["added_tokens"][0], id=len(letters) - 1)]


def multiply(parts: dict[str, Any]) -> None:
    parts["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}


def shards_elsewhere(folder: Path) -> None:
    names = load_file(folder / "model.safetensors").keys()
    shutil.copy(folder / "model.safetensors", folder.parent / "outside.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def tokenizer_elsewhere(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_file": "../steer/tokenizer.json"}))


def whole_numbers(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name].to(torch.int32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
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
    "settings nested deeply": (
        lambda folder: (folder / "adapter.json").write_text("[" * 100_000),
        "adapter.json is not readable JSON",
    ),
    "a zero byte in a path": (
        lambda folder: (folder / "adapter.json").write_text(json.dumps({"model": "a\0b"})),
        "does not name a folder",
    ),
    "half a character in a path": (
        lambda folder: (folder / "adapter.json").write_text('{"model": "a\\ud800"}'),
        "does not name a folder",
    ),
    "shards elsewhere": (shards_elsewhere, "weight_map names '../outside.safetensors'"),
    "tokenizer elsewhere": (tokenizer_elsewhere, "tokenizer_file names '../steer/tokenizer.json'"),
    "weights that are integers": (whole_numbers, "holds I32"),
    "template with an error": (
        lambda folder: (folder / "chat_template.jinja").write_text("{% for %}"),
        "chat_template.jinja is not a chat template",
    ),
    "tokenizer that lacks characters": (edit_tokenizer(drop_bytes), "cannot write U+"),
    "tokenizer that multiplies text": (edit_tokenizer(multiply), "replaces one character by up to 1000"),
    "tokenizer with dropout": (
        edit_tokenizer(lambda parts: parts["model"].update(dropout=0.1)),
        "dropout",
    ),
}

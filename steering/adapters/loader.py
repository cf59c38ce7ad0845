"""Reading an adapter folder: a plain Hugging Face model (a delta), or models beside an `adapter.json`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any
from weakref import WeakSet

from steering.adapters.adapter import Adapter
from steering.adapters.folder_check import check_folder, read_json
from steering.adapters.kind import ShiftRule
from steering.adapters.kinds import DEFAULT_KIND, KINDS
from steering.adapters.tokenizer_check import check_tokenizer
from steering.device.host_memory import release_freed_memory
from steering.errors import AdapterLoadError, ModelLoadError
from steering.gguf.location import SUFFIX
from steering.model.forward import FusedForward
from steering.model.loaded_model import LoadedModel
from steering.model.loading import load_model
from steering.model.tokenizer_files import SharedTokenizers

ADAPTER_FILE = "adapter.json"
_PEFT_FILE = "adapter_config.json"
_DEFAULTS: dict[str, Any] = {
    "format": 1,
    "kind": DEFAULT_KIND,
    "alpha": 1.0,
    "bridge": "rescore",
    "unmatched": "neutral",
    "top_k": None,
}
# Free text for people, which the loader does not read.
_NOTES = {"card"}

_TOKENIZERS = SharedTokenizers()
_CHECKED: WeakSet[Any] = WeakSet()
"""The tokenizers that have passed their check, which takes a fifth of a second."""


def load_adapter(name: str, path: str | Path, *, device: str = "auto", dtype: str = "auto") -> Adapter:
    """Load the adapter folder `path` under `name`.

    Raises AdapterLoadError naming the file or field at fault. A load that fails keeps nothing in memory. Whether the
    adapter's bridge exists is checked when it is attached to a base.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise AdapterLoadError(f"adapter {name!r}: {folder} is not a folder")
    try:
        version = _digest(folder)
        check_folder(folder)
        settings = _read_settings(folder / ADAPTER_FILE)
        kind = KINDS[settings["kind"]]
        rule = kind.rule(settings)
        _check_alpha(settings["alpha"], rule)
        models = tuple(
            load_model(_inside(folder, part), device=device, dtype=dtype, shared=_TOKENIZERS)
            for part in kind.folders(settings)
        )
        for model in models:
            # The check at load has packed its weights, and it may never be used again.
            if isinstance(model.forward, FusedForward):
                model.forward.release_packed_weights()
        _check_one_vocabulary(models)
        if models[0].tokenizer not in _CHECKED:
            check_tokenizer(models[0].tokenizer)
            _CHECKED.add(models[0].tokenizer)
        if _digest(folder) != version:
            raise AdapterLoadError("its files changed while they were read")
    except (AdapterLoadError, ModelLoadError, OSError, ValueError) as error:
        raise AdapterLoadError(f"adapter {name!r}: {error}") from error
    finally:
        release_freed_memory()
    return Adapter(
        name=name,
        version=version,
        kind=settings["kind"],
        path=folder,
        models=models,
        rule=rule,
        alpha=float(settings["alpha"]),
        bridge=settings["bridge"],
        neutral=settings["unmatched"] == "neutral",
        top_k=settings["top_k"],
    )


def _read_settings(file: Path) -> dict[str, Any]:
    """Every field of the adapter file, defaults filled in."""
    given = read_json(file.name, file) if file.exists() else {}
    if not isinstance(given, dict):
        raise AdapterLoadError(f"{file.name} must hold one JSON object")
    kind = given.get("kind", DEFAULT_KIND)
    if not isinstance(kind, str) or kind not in KINDS:
        raise AdapterLoadError(f"{file.name}: kind must be one of {', '.join(KINDS)}")
    defaults = {**_DEFAULTS, **KINDS[kind].defaults}
    unknown = sorted(set(given) - set(defaults) - _NOTES)
    if unknown:
        raise AdapterLoadError(f"{file.name}: unknown field {unknown[0]!r}")
    settings = {**defaults, **given}
    _check_settings(file.name, settings)
    return settings


def _check_settings(file: str, settings: dict[str, Any]) -> None:
    alpha, top_k = settings["alpha"], settings["top_k"]
    checks = {
        "format": settings["format"] == 1,
        "alpha": isinstance(alpha, int | float) and not isinstance(alpha, bool),
        "bridge": isinstance(settings["bridge"], str),
        "unmatched": settings["unmatched"] in ("neutral", "zero"),
        "top_k": top_k is None or (type(top_k) is int and top_k > 0),
    }
    for field, good in checks.items():
        if not good:
            raise AdapterLoadError(f"{file}: {field} cannot be {settings[field]!r}")


def _check_alpha(alpha: float, rule: ShiftRule) -> None:
    low, high = rule.alpha_range
    if not low <= alpha <= high:
        raise AdapterLoadError(f"{ADAPTER_FILE}: alpha cannot be {alpha!r}")


def _inside(folder: Path, part: Any) -> Path:
    # No file's name has a zero byte or half a surrogate pair.
    if not isinstance(part, str) or re.search("[\0\ud800-\udfff]", part):
        raise AdapterLoadError(f"{ADAPTER_FILE}: {part!r} does not name a folder or a GGUF file")
    target = (folder / part).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise AdapterLoadError(f"{ADAPTER_FILE}: {part!r} does not lie below the adapter's folder")
    if target.suffix == SUFFIX and target.is_file():
        return target
    if not target.is_dir():
        raise AdapterLoadError(f"{ADAPTER_FILE}: there is no folder {part!r}")
    # transformers would follow such a folder to another model, anywhere.
    if (target / _PEFT_FILE).exists():
        raise AdapterLoadError(f"{_PEFT_FILE}: a PEFT adapter must be merged into its model first")
    return target


def _check_one_vocabulary(models: tuple[LoadedModel, ...]) -> None:
    first = models[0]
    for other in models[1:]:
        if other.vocab_size != first.vocab_size or other.vocabulary.tokens != first.vocabulary.tokens:
            raise AdapterLoadError("expert and antiexpert must have the same vocabulary")


def _digest(folder: Path) -> str:
    """Twelve hex digits over the names and bytes of all files below the folder."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]

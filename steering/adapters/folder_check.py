"""Checks the files of an adapter folder before anything reads them: they must be plain, and name no file outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, TemplateSyntaxError
from safetensors import SafetensorError, safe_open

from steering.errors import AdapterLoadError

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
# Fields of tokenizer_config.json that name files.
_FILE_SUFFIX = "_file"


def check_folder(folder: Path) -> None:
    """Check every JSON file, chat template and weights file below a folder.

    Raises AdapterLoadError naming the file for JSON that cannot be read, for an index or a tokenizer setting that names
    a file elsewhere, for a chat template with a syntax error, and for weights that are not floating point numbers.
    """
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if file.suffix == ".json":
            _check_json(name, file)
        elif file.suffix == ".jinja":
            _check_template(name, file)
        elif file.suffix == ".safetensors":
            _check_weights(name, file)


def read_json(name: str, file: Path) -> Any:
    """A JSON file's value. Raises AdapterLoadError."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterLoadError(f"{name} is not readable JSON: {error}") from error


def _check_json(name: str, file: Path) -> None:
    value = read_json(name, file)
    for field, path in _named_files(file.name, value):
        if (
            not isinstance(path, str)
            or PurePath(path).name != path
            or "\\" in path
            or path in ("", ".", "..")
        ):
            raise AdapterLoadError(
                f"{name}: {field} names {str(path)[:100]!r}, which is not a file beside it"
            )


def _named_files(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a file that name other files, and the names."""
    if not isinstance(value, dict):
        return
    if name.endswith(".index.json"):
        shards = value.get("weight_map")
        yield from (("weight_map", shard) for shard in (shards if isinstance(shards, dict) else {}).values())
    elif name == "tokenizer_config.json":
        files = {field: path for field, path in value.items() if field.endswith(_FILE_SUFFIX)}
        yield from ((field, path) for field, path in files.items() if path is not None)


def _check_template(name: str, file: Path) -> None:
    try:
        # Parsed only, never rendered here.
        Environment(autoescape=True).parse(file.read_text(encoding="utf-8"))
    except (TemplateSyntaxError, UnicodeDecodeError, RecursionError) as error:
        raise AdapterLoadError(f"{name} is not a chat template: {error}") from error


def _check_weights(name: str, file: Path) -> None:
    try:
        with safe_open(file, framework="pt") as weights:
            for key in weights.keys():  # noqa: SIM118 - it is no mapping
                kind = weights.get_slice(key).get_dtype()
                if kind not in _FLOATS:
                    raise AdapterLoadError(f"{name}: {key} holds {kind}, not floating point numbers")
    except (SafetensorError, OSError):
        return  # a broken file, which the loader explains

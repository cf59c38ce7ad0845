"""Which GGUF file a model's name stands for."""

from __future__ import annotations

from pathlib import Path

from steering.errors import ModelLoadError

SUFFIX = ".gguf"


def gguf_file(name: str | Path) -> Path | None:
    """The GGUF file that a path names: the file itself, or the only one in a folder without a `config.json`.

    None for every other folder and for Hugging Face ids. Raises ModelLoadError for a GGUF file that does not exist,
    and for a folder with several, since nothing says which one is meant.
    """
    path = Path(name)
    if path.suffix.lower() == SUFFIX and not path.is_dir():
        if not path.is_file():
            raise ModelLoadError(f"{path}: there is no such file")
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == SUFFIX and file.is_file())
    if len(files) > 1:
        raise ModelLoadError(f"{path}: the folder holds {len(files)} GGUF files; name one of them")
    return files[0] if files else None

"""The bundled demo: two tiny bases, three adapters, and the code that makes them.

This module imports nothing heavy: its two functions only list folders.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def demo_models() -> dict[str, Path]:
    """The bundled bases' folders by name."""
    return _folders(_HERE / "models")


def demo_adapters() -> dict[str, Path]:
    """The bundled adapters' folders by name."""
    return _folders(_HERE / "adapters")


def _folders(parent: Path) -> dict[str, Path]:
    if not parent.is_dir():
        return {}
    return {
        path.name: path
        for path in sorted(parent.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }

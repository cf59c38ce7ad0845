"""The demos: `tiny`, two bundled bases of two million parameters with three adapters, and `smollm2`, a real LLM.

This folder also has the code that makes them. This module imports nothing heavy: its functions only list folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from demo import smollm2

DemoName = Literal["tiny", "smollm2"]
_HERE = Path(__file__).resolve().parent


def demo_models(name: DemoName = "tiny") -> dict[str, Path]:
    """A demo's bases by name: folders, or a GGUF file. Raises FileNotFoundError if SmolLM2 is not installed."""
    return {"smollm2": smollm2.model_file()} if name == "smollm2" else _folders(_HERE / "models")


def demo_adapters(name: DemoName = "tiny") -> dict[str, Path]:
    """The folders of a demo's adapters by name."""
    return _folders(smollm2.ADAPTERS if name == "smollm2" else _HERE / "adapters")


def _folders(parent: Path) -> dict[str, Path]:
    if not parent.is_dir():
        return {}
    return {
        path.name: path
        for path in sorted(parent.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }

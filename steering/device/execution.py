"""How an engine puts its work on its device: chosen by the device, once, at start."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from steering.device.cuda_graphs import CudaGraphs
from steering.device.recording import Record
from steering.device.side_stream import CudaSideStream, OneStream, SideStream


@dataclass(frozen=True, slots=True, eq=False)
class Execution:
    """What pays on one kind of device and not on another; the tokens are the same.

    `record_base`, `record_steering`: what records short passes; None where calling operations costs little. The base's
    replays and a steering model's may run at the same time, two steering models' may not.
    `runs_ahead`: the base's next pass is queued before this step's tokens are read, so that the device works while the
    host does; a sequence that turns out to have ended has then been computed once in vain.
    `side`: what the steering models' passes run beside.
    """

    record_base: Record | None = None
    record_steering: Record | None = None
    runs_ahead: bool = False
    side: SideStream = field(default_factory=OneStream)


def execution_on(device: torch.device, *, eager: bool = False) -> Execution:
    """A GPU's passes are recorded, run ahead and beside each other, unless `eager`; a CPU does one thing at a time."""
    if device.type != "cuda" or eager:
        return Execution()
    return Execution(CudaGraphs(device), CudaGraphs(device), runs_ahead=True, side=CudaSideStream(device))

"""How an engine puts its work on its device; chosen by the device, once, at start."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from steering.device.capture import Capture
from steering.device.cuda_graphs import CudaGraphs
from steering.device.side_stream import CudaSideStream, NoSideStream, SideStream


@dataclass(frozen=True, slots=True, eq=False)
class Execution:
    """Techniques that pay on one kind of device and not on another; the tokens are the same with and without them.

    `capture_base`, `capture_steering`: capture short passes as graphs; None where calling operations costs little.
    Replays of the base and of a steering model may overlap, replays of two steering models may not.
    `runs_ahead`: the base's next pass is queued before this step's tokens are read, so that the device and the host
    work at the same time. The pass is wasted for a sequence that turns out to have ended.
    `side`: the stream of the steering models' passes.
    """

    capture_base: Capture | None = None
    capture_steering: Capture | None = None
    runs_ahead: bool = False
    side: SideStream = field(default_factory=NoSideStream)


def execution_on(device: torch.device, *, eager: bool = False) -> Execution:
    """Choose graphs, running ahead and a side stream for a GPU unless `eager`; none of them for a CPU."""
    if device.type != "cuda" or eager:
        return Execution()
    return Execution(CudaGraphs(device), CudaGraphs(device), runs_ahead=True, side=CudaSideStream(device))

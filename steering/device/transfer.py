"""The host's values on their way to the device, and the device's on their way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def on_device(
    values: Sequence[Any] | NDArray[Any], device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """`torch.tensor(values)` on the device, queued behind its work: the caller does not wait for it to arrive.

    From memory that is not pinned, a copy to a GPU waits for all that the GPU has still to do.
    """
    if device.type == "cpu":
        return torch.tensor(values, dtype=dtype)
    # What numpy holds cannot be made a tensor and pinned at once.
    is_array = isinstance(values, np.ndarray)
    pinned = (
        torch.as_tensor(values, dtype=dtype).pin_memory()
        if is_array
        else torch.tensor(values, dtype=dtype, pin_memory=True)
    )
    return pinned.to(device, non_blocking=True)


class OnHost:
    """A tensor's values on their way to the host, behind what is queued by now and not behind what is queued later."""

    def __init__(self, values: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._values = values
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.current_stream(values.device).record_event()

    def read(self) -> list[Any]:
        """Wait until they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        read: list[Any] = self._values.tolist()
        return read

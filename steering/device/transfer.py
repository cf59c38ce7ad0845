"""Copies between host and device that neither side waits for."""

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
    """Make `torch.tensor(values)` on the device. The copy is queued, and the caller does not wait for it.

    The host's values are pinned first: a copy from unpinned memory waits until a GPU has finished all queued work.
    """
    if device.type == "cpu":
        return torch.tensor(values, dtype=dtype)
    # torch cannot make a pinned tensor of a numpy array in one call.
    is_array = isinstance(values, np.ndarray)
    pinned = (
        torch.as_tensor(values, dtype=dtype).pin_memory()
        if is_array
        else torch.tensor(values, dtype=dtype, pin_memory=True)
    )
    return pinned.to(device, non_blocking=True)


class OnHost:
    """A copy of a tensor to the host. It waits for the work that is queued by now, not for work queued later."""

    def __init__(self, values: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._values = values
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.current_stream(values.device).record_event()

    def read(self) -> list[Any]:
        """Wait for the copy; returns the values as a list."""
        if self._arrived is not None:
            self._arrived.synchronize()
        read: list[Any] = self._values.tolist()
        return read

"""What records a forward pass and what replays it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Replay = Callable[[], Tensor]
Record = Callable[[Callable[[], Tensor]], Replay]
"""Runs a pass once more and returns what repeats it on the same memory, its result included."""

"""The types of graph capture: a function that captures a pass, and the function that replays it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Replay = Callable[[], Tensor]
"""Repeats a captured pass on the same memory and returns its result, which is always the same tensor."""

Capture = Callable[[Callable[[], Tensor]], Replay]
"""Calls a pass that has run before, capturing its operations, and returns its replay. Raises where it cannot."""

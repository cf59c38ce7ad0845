"""How many replicas the load calls for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

BUSY = 0.75
"""The share of a replica's sequences at once that should be in use. Above it one more is started, before any queues."""


def wanted_replicas(pending: Iterable[float], max_num_seqs: int) -> int:
    """The replicas for sequences that run or wait, by replica; at least 1. A request with `n: 8` counts as 8."""
    return max(1, math.ceil(sum(pending) / (BUSY * max_num_seqs)))


class PendingPolicy:
    """Ray's autoscaling policy: by the sequences that the replicas report to be pending. Ray keeps to the bounds."""

    def __init__(self, max_num_seqs: int) -> None:
        self._max_num_seqs = max_num_seqs

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """The replicas wanted for Ray's `AutoscalingContext`, and no state."""
        pending = (context.aggregated_metrics or {}).get("pending", {})
        return wanted_replicas(pending.values(), self._max_num_seqs), {}

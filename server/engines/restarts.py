"""How often an engine may be restarted."""

from __future__ import annotations

import time
from collections import deque

MAX_RESTARTS = 3
RESTART_SECONDS = 600.0
"""An engine that has been restarted `MAX_RESTARTS` times within so many seconds is not restarted again."""


class RestartBudget:
    """Counts the restarts of one engine. `count`: all of them."""

    def __init__(self) -> None:
        self.count = 0
        self._last: deque[float] = deque(maxlen=MAX_RESTARTS)

    def spend(self) -> bool:
        """Count a restart; False, and nothing is counted, where there were too many of late."""
        now = time.monotonic()
        if len(self._last) == MAX_RESTARTS and now - self._last[0] < RESTART_SECONDS:
            return False
        self._last.append(now)
        self.count += 1
        return True

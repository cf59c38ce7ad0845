"""Warnings about events that may come thousands of times a second."""

from __future__ import annotations

import logging
import time

_SECONDS = 60.0


class SeldomWarning:
    """Logs a warning the first time, and then at most once a minute, with the number of events since the last one."""

    def __init__(self, logger: logging.Logger, message: str) -> None:
        self._logger = logger
        self._message = message
        self._events = 0
        self._last = float("-inf")

    def note(self) -> None:
        """Counts one event."""
        self._events += 1
        now = time.monotonic()
        if now - self._last >= _SECONDS:
            self._logger.warning("%s (%d times since the last such line)", self._message, self._events)
            self._last, self._events = now, 0

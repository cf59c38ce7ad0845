"""The adapters of a session by name, and how many open rows each version steers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from steering.steerers.steerer import Steerer

logger = logging.getLogger(__name__)


class SteererRegistry:
    """The adapters attached to one base. Any thread.

    A version that is replaced or removed is refused to new rows at once, and kept until the last row that it steers is
    closed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: dict[str, Steerer] = {}
        self._rows: dict[Steerer, int] = {}
        self._waiting: dict[Steerer, list[Callable[[], None]]] = {}

    def install(self, steerer: Steerer) -> None:
        """Make a version current under its adapter's name."""
        with self._lock:
            self._current[steerer.adapter.name] = steerer

    def remove(self, name: str, when_unused: Callable[[], None] | None = None) -> None:
        """Forget a name. Raises KeyError for an unknown one.

        Calls `when_unused` once the removed version steers no row: now, or in the thread that closes the last one.
        """
        with self._lock:
            steerer = self._current.pop(name)
            unused = steerer not in self._rows
            if when_unused is not None and not unused:
                self._waiting.setdefault(steerer, []).append(when_unused)
        if when_unused is not None and unused:
            _call(when_unused)

    def current(self) -> dict[str, Steerer]:
        """The versions that new rows get, by name."""
        with self._lock:
            return dict(self._current)

    def all(self) -> list[tuple[Steerer, int]]:
        """Every version in memory with the number of rows it steers: current versions first, then older ones."""
        with self._lock:
            current = list(self._current.values())
            older = [steerer for steerer in self._rows if steerer not in current]
            return [(steerer, self._rows.get(steerer, 0)) for steerer in (*current, *older)]

    def pin(self, steerers: Iterable[Steerer]) -> None:
        """Count one more row of each."""
        with self._lock:
            for steerer in steerers:
                self._rows[steerer] = self._rows.get(steerer, 0) + 1

    def unpin(self, steerers: Iterable[Steerer]) -> None:
        """Count one row less of each."""
        to_call: list[Callable[[], None]] = []
        with self._lock:
            for steerer in steerers:
                self._rows[steerer] -= 1
                if not self._rows[steerer]:
                    del self._rows[steerer]
                    to_call.extend(self._waiting.pop(steerer, ()))
        for call in to_call:
            _call(call)


def _call(when_unused: Callable[[], None]) -> None:
    """Call a listener. An error of it is logged: the row that ends here must not fail for it."""
    try:
        when_unused()
    except Exception:
        logger.exception("a listener of an adapter's end has failed")

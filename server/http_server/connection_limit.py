"""How many connections may be open, and which one gives way to a new one."""

from __future__ import annotations

import logging
import resource
from pathlib import Path
from typing import Protocol

from server.telemetry.seldom import SeldomWarning

logger = logging.getLogger(__name__)

_OPEN_DESCRIPTORS = Path("/proc/self/fd")
_OTHERS = 64
"""The descriptors that the server is taken to have open besides connections, on a system that does not tell."""
_MOST_KEPT = 256
"""The most descriptors that are kept free for loading adapters, for maps and for connections on their way out."""


class Closable(Protocol):
    """A connection that can be closed."""

    def close_idle(self) -> None:
        """Closes a connection that has no request."""


class ConnectionLimit:
    """Admits at most `limit` connections. Event loop only.

    At the limit, the connection that has been without a request for the longest is closed in favour of the new one, so
    that idle connections keep nobody out. Where every connection has a request, the new one is refused.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._closed = False
        self._open: set[Closable] = set()
        # In the order in which they became idle.
        self._idle: dict[Closable, None] = {}
        self._full = SeldomWarning(logger, f"connections are at their limit of {limit}; idle ones give way")
        self._exhausted = SeldomWarning(logger, "there are no file descriptors left for connections")

    def admit(self, connection: Closable) -> bool:
        """Takes in a new connection, which is idle; False where there is no place for it."""
        if self._closed:
            return False
        if len(self._open) >= self.limit:
            self._full.note()
            if not self._close_longest_idle():
                return False
        self._open.add(connection)
        self._idle[connection] = None
        return True

    def busy(self, connection: Closable) -> None:
        """Notes that a connection has a request."""
        self._idle.pop(connection, None)

    def idle(self, connection: Closable) -> None:
        """Notes that a connection has no request any more."""
        if connection in self._open:
            self._idle.setdefault(connection)

    def forget(self, connection: Closable) -> None:
        """Notes that a connection is closed."""
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def close(self) -> None:
        """Refuses every connection from now on."""
        self._closed = True

    def exhausted(self) -> None:
        """Makes room where the system has no descriptor left, even though the limit is not reached."""
        self._exhausted.note()
        self._close_longest_idle()

    def _close_longest_idle(self) -> bool:
        connection = next(iter(self._idle), None)
        if connection is None:
            return False
        self.forget(connection)
        connection.close_idle()
        return True


def most_connections(wanted: int | None) -> int:
    """The number of connections that the process can have open; `wanted`, where that is less.

    Three quarters of its file descriptors (all but 256, where it has more than a thousand), less those that are open.
    """
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        descriptors = 2**20
    used = len(list(_OPEN_DESCRIPTORS.iterdir())) if _OPEN_DESCRIPTORS.is_dir() else _OTHERS
    possible = max(1, descriptors - used - min(_MOST_KEPT, descriptors // 4))
    if wanted is None:
        return possible
    if wanted > possible:
        logger.warning(
            "--max-connections is %d, but %d file descriptors allow %d connections",
            *(wanted, descriptors, possible),
        )
    return min(wanted, possible)

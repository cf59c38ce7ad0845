"""A listening socket that takes a few connections at a time, and survives running out of file descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

ACCEPTED_A_TURN = 4
"""The most connections that are accepted in one turn of the event loop. asyncio would accept its backlog of 2,048,
and exhaust the descriptors before the first of them could be refused."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener(socket.socket):
    """Listens on the descriptor `fileno`; calls `on_exhausted` where a connection finds no descriptor left.

    asyncio's own answer to that is a traceback for every connection, and a second without accepting any.
    """

    def __init__(self, fileno: int, on_exhausted: Callable[[], None]) -> None:
        super().__init__(fileno=fileno)
        self._on_exhausted = on_exhausted
        self._accepted = 0
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. Raises BlockingIOError where none waits, and after `ACCEPTED_A_TURN` of them."""
        if self._accepted >= ACCEPTED_A_TURN:
            self._accepted = 0
            raise BlockingIOError
        try:
            accepted = super().accept()
        except BlockingIOError:
            self._accepted = 0
            raise
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._shed()
            raise BlockingIOError from None
        self._accepted += 1
        return accepted

    def close(self) -> None:
        """Stops listening."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        super().close()

    def _shed(self) -> None:
        """Closes the waiting connection, with the descriptor that was kept for this.

        Left waiting, it would keep the listening socket readable and the event loop spinning.
        """
        self._on_exhausted()
        self._accepted = 0
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        with contextlib.suppress(OSError):
            super().accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

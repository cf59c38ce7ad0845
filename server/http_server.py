"""The HTTP server around an app: it drains when told to stop, and can drop a connection."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import Scope

from server.config import Config
from server.service import Service

_FLUSH_SECONDS = 2
"""Once draining has ended, how long connections have for what is on its way to them."""


class DrainingServer(uvicorn.Server):
    """Told to stop, it goes on listening while old work ends, so that new work and probes are answered with a 503.

    Then it exits with status 0. Told twice, it exits at once.
    """

    def __init__(
        self, config: uvicorn.Config, service: Service, on_listening: Callable[[str], None] | None
    ) -> None:
        super().__init__(config)
        self._service = service
        self._on_listening = on_listening
        self._deadline: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self._deadline is not None:
            os._exit(128 + sig)
        # Not uvicorn's own: it stops listening at once, and at the end dies of the signal.
        self._service.drain()
        self._deadline = time.monotonic() + self._service.config.shutdown_timeout

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; True ends the server."""
        if self._deadline is not None and not self.should_exit:
            late = time.monotonic() >= self._deadline
            if late:
                self._service.end_running()
            self.should_exit = late or not self.server_state.tasks
        return await super().on_tick(counter)

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Says where the server is, once it is."""
        await super().startup(sockets)  # type: ignore[arg-type]
        for listener in self.servers if self.started else ():
            for bound in listener.sockets:
                _limit_stalls(bound, self._service.config.send_timeout)
                host, port = bound.getsockname()[:2]
                if self._on_listening is not None:
                    self._on_listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    def drop(self, scope: Scope) -> None:
        """Closes a request's connection without waiting for its client, which takes nothing."""
        for connection in list(self.server_state.connections):
            protocol: Any = connection
            if protocol.cycle is not None and protocol.cycle.scope is scope:
                protocol.transport.abort()


def _limit_stalls(listener: socket.socket, seconds: float) -> None:
    """Has the system close connections whose client takes nothing, also of a reply that we have wholly handed over."""
    if hasattr(socket, "TCP_USER_TIMEOUT") and listener.family in (socket.AF_INET, socket.AF_INET6):
        # Connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def make_server(
    app: FastAPI, config: Config, on_listening: Callable[[str], None] | None = None
) -> DrainingServer:
    """The HTTP server for `app`, not yet started; `on_listening` is told its address."""
    settings = uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_FLUSH_SECONDS,
    )
    server = DrainingServer(settings, app.state.service, on_listening)
    app.state.service.drop_connection = server.drop
    return server

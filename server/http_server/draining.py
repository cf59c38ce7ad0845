"""A server that drains when told to stop, and drops connections whose client stops reading."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE

from server.config import Config
from server.http_server.connection import Connection, ConnectionRules
from server.http_server.connection_limit import ConnectionLimit, most_connections
from server.http_server.listener import Listener
from server.middleware import DROP_CONNECTION
from server.service import Service

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 2
"""The time that connections have, once draining has ended, to send their buffers."""


class DrainingServer(uvicorn.Server):
    """After the first SIGTERM or SIGINT it still listens while running requests end, and new ones get a 503.

    Then it exits with status 0. A second signal ends the process at once.
    """

    def __init__(
        self, app: ASGIApp, config: Config, service: Service, on_listening: Callable[[str], None] | None
    ) -> None:
        self._limit = ConnectionLimit(most_connections(config.max_connections))
        rules = ConnectionRules(
            self._limit, config.head_timeout, config.keep_alive_timeout, metrics=service.metrics
        )
        super().__init__(
            uvicorn.Config(
                self._serve_request,
                interface="asgi3",
                # Named, so that no other parser or loop is used where its package happens to be installed.
                http=cast(Any, partial(Connection, rules=rules)),
                ws="none",
                loop="asyncio",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_FLUSH_SECONDS,
            )
        )
        self._app = app
        self._settings = config
        self._service = service
        self._on_listening = on_listening
        self._deadline: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler.

        It replaces uvicorn's, which stops listening at once and in the end lets the signal kill the process.
        """
        if self._deadline is not None:
            os._exit(128 + sig)
        self._service.drain()
        self._deadline = time.monotonic() + self._settings.shutdown_timeout

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends the server."""
        if self._deadline is not None and not self.should_exit:
            late = time.monotonic() >= self._deadline
            if late:
                self._service.end_running()
            self.should_exit = late or not self.server_state.tasks
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen, then calls `on_listening` with the address. Exits with status 3 where it cannot listen."""
        await super().startup(sockets or await self._bind())
        for listener in self.servers if self.started else ():
            for bound in listener.sockets:
                _limit_stalls(bound, self._settings.send_timeout)
                host, port = bound.getsockname()[:2]
                if self._on_listening is not None:
                    self._on_listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes every connection, among them those that were accepted a moment ago and are not made yet."""
        self._limit.close()
        await super().shutdown(sockets)

    async def _bind(self) -> list[socket.socket]:
        """A listener for each address of the host."""
        try:
            # asyncio resolves the host and binds its addresses; the listeners take their sockets over.
            bound = await asyncio.get_running_loop().create_server(
                asyncio.Protocol, self._settings.host, self._settings.port, start_serving=False
            )
        except OSError as error:
            logger.error("the server cannot listen: %s", error)
            sys.exit(STARTUP_FAILURE)
        listeners: list[socket.socket] = [
            Listener(each.dup().detach(), self._limit.exhausted) for each in bound.sockets
        ]
        bound.close()
        return listeners

    async def _serve_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, which finds in the request's scope how to close its connection."""
        if scope["type"] == "http":
            scope[DROP_CONNECTION] = partial(self._drop, scope)
        await self._app(scope, receive, send)

    def _drop(self, scope: Scope) -> None:
        """Closes a request's connection without sending its buffer, because the client does not read."""
        for connection in list(self.server_state.connections):
            protocol: Any = connection
            if protocol.cycle is not None and protocol.cycle.scope is scope:
                protocol.transport.abort()


def _limit_stalls(listener: socket.socket, seconds: float) -> None:
    """Has the system close connections whose client stops reading.

    This ends the replies that were handed to the system whole, for which the app no longer waits.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT") and listener.family in (socket.AF_INET, socket.AF_INET6):
        # Accepted connections inherit the option.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def make_server(
    app: FastAPI, config: Config, on_listening: Callable[[str], None] | None = None
) -> DrainingServer:
    """The HTTP server for `app`, not yet started; `on_listening` is called with its address."""
    return DrainingServer(app, config, app.state.service, on_listening)

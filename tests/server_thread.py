"""A real HTTP server in a thread of the test's own process, so that a test can reach into its objects."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from server.app import build_app
from server.config import load_config
from server.http_server import make_server
from server.service import Service


@dataclass(frozen=True, slots=True)
class ServerThread:
    """A running server; `address` is its host and port, `connections` how many clients are connected."""

    url: str
    address: tuple[str, int]
    service: Service
    connections: Callable[[], int]


@contextmanager
def serve_in_thread(engines: Mapping[str, Any] | None = None, **settings: Any) -> Iterator[ServerThread]:
    """Serves `engines`, by default the models in the settings, on a free port of the loopback interface."""
    config = load_config(port=0, **settings)
    app = build_app(config, engines=engines)
    http = make_server(app, config)
    thread = threading.Thread(target=http.run, daemon=True)
    thread.start()
    wait_for(lambda: http.started)
    listener: socket.socket = http.servers[0].sockets[0]
    host, port = listener.getsockname()[:2]
    try:
        yield ServerThread(
            f"http://{host}:{port}",
            (host, port),
            app.state.service,
            lambda: len(http.server_state.connections),
        )
    finally:
        http.should_exit = True
        thread.join(20)
    if thread.is_alive():
        raise RuntimeError("the server did not stop")


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Returns once another thread has made the condition true; raises TimeoutError if none does in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition never became true")
        time.sleep(0.005)

"""Thousands of idle connections, and few file descriptors."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.server.starving.canary import Canary, soft_limit
from tests.server_process import ServerProcess, serving
from tests.server_thread import wait_for

MANY = 2_000


@pytest.fixture
def room_for_many() -> Iterator[None]:
    """Descriptors for the clients' ends of the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + 200
    if hard < wanted:
        pytest.skip(f"only {hard} file descriptors are allowed")
    with soft_limit(resource.RLIMIT_NOFILE, max(soft, wanted)):
        yield


def open_idle(server: ServerProcess, stack: ExitStack, count: int) -> list[socket.socket]:
    return [stack.enter_context(socket.create_connection(server.address, timeout=20)) for _ in range(count)]


def is_closed(opened: socket.socket) -> bool:
    try:
        return opened.recv(1) == b""
    except OSError:
        return True


def descriptors(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


@pytest.mark.usefixtures("room_for_many")
def test_two_thousand_idle_connections(folders: dict[str, Path], tmp_path: Path) -> None:
    log = tmp_path / "log"
    models: dict[str, Any] = {
        "model": {"pieces": str(folders["pieces"])},
        "adapter": {"steer": str(folders["steer"])},
    }
    with serving(log, **models, head_timeout=5) as server, server.client() as client, ExitStack() as stack:
        canary = Canary(client)
        before = descriptors(server)
        idle = open_idle(server, stack, MANY)
        canary.check()
        began = time.monotonic()
        # Half of them begin a request, and never go on.
        for each in idle[::2]:
            each.sendall(b"GET /health HTTP/1.1\r\nhost:")
        canary.check()
        for each in idle[1::2]:
            assert is_closed(each)
        for each in idle[::2]:
            assert each.recv(9) == b"HTTP/1.1 "
        assert time.monotonic() - began < 30
        wait_for(lambda: descriptors(server) <= before + 2)
        canary.check()
    said = log.read_text()
    assert "Traceback" not in said and said.count("\n") < 10, said


@pytest.mark.parametrize("available", [64, 96])
def test_few_file_descriptors(folders: dict[str, Path], tmp_path: Path, available: int) -> None:
    log = tmp_path / "log"
    with ExitStack() as stack:
        with soft_limit(resource.RLIMIT_NOFILE, available):
            server = stack.enter_context(
                serving(
                    log,
                    model={"pieces": str(folders["pieces"])},
                    adapter={"steer": str(folders["steer"])},
                )
            )
        with server.client() as client:
            canary = Canary(client)
        idle = open_idle(server, stack, 4 * available)
        for _ in range(5):
            # A new client each time: the one before may have had to give way.
            with server.client() as client:
                Canary(client)
            idle += open_idle(server, stack, available)
        for each in idle:
            each.close()
        with server.client() as client:
            canary._client = client
            canary.check()
            grammar = {"response_format": {"type": "json_object"}, "max_tokens": 20}
            body = {"model": "pieces", "prompt": "a", **grammar}
            assert client.post("/v1/completions", json=body).status_code == 200
    said = log.read_text()
    assert "Traceback" not in said
    # A few lines at most, though a thousand connections came.
    assert said.count("\n") < 10, said
    assert "idle ones give way" in said

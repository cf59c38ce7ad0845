"""SIGTERM to a server in a process of its own: it drains, and exits with status 0."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server_process import API_KEY, ServerProcess, serving, tiny_folders
from tests.server_thread import wait_for

Serve = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folders(tmp_path_factory.mktemp("tiny"))["bytes"]


@pytest.fixture
def serve(model: Path, tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(**settings: Any) -> ServerProcess:
            return stack.enter_context(serving(tmp_path / "log", model={"m": str(model)}, **settings))

        yield start


class Work(threading.Thread):
    """A stream of many sequences, which run one after the other and take some seconds."""

    def __init__(self, server: ServerProcess, sequences: int) -> None:
        super().__init__()
        self._server = server
        self._sequences = sequences
        self.begun = threading.Event()
        self.events: list[str] = []
        self.broken = False

    def run(self) -> None:
        body = {"model": "m", "prompt": "hi", "max_tokens": 250, "ignore_eos": True, "stream": True}
        try:
            with (
                self._server.client() as client,
                client.stream("POST", "/v1/completions", json={**body, "n": self._sequences}) as reply,
            ):
                for line in reply.iter_lines():
                    if line:
                        self.events.append(line.removeprefix("data: "))
                        self.begun.set()
        except httpx.TransportError:
            self.broken = True


def begin(server: ServerProcess, sequences: int) -> Work:
    work = Work(server, sequences)
    work.start()
    assert work.begun.wait(30)
    return work


def exit_status(server: ServerProcess, seconds: float = 20) -> int:
    wait_for(lambda: not server.alive, seconds)
    return server.stop()


def test_running_work_ends_and_new_work_is_refused(serve: Serve) -> None:
    server = serve(max_num_seqs=1)
    work = begin(server, 8)
    os.kill(server.pid, signal.SIGTERM)
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {API_KEY}"}) as client:
        wait_for(lambda: client.get("/ready").status_code == 503)
        assert client.get("/health").status_code == 200
        reply = client.post("/v1/completions", json={"model": "m", "prompt": "hi"})
        assert (reply.status_code, reply.json()["error"]["type"]) == (503, "unavailable_error")
        assert "retry-after" in reply.headers
    assert server.alive
    work.join(60)
    assert work.events[-1] == "[DONE]"
    ends = [event for event in work.events if '"finish_reason":"length"' in event]
    assert len(ends) == 8
    assert exit_status(server) == 0


def test_an_idle_server_exits_at_once(serve: Serve) -> None:
    server = serve()
    began = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    assert exit_status(server) == 0
    assert time.monotonic() - began < 10


def test_work_that_outlasts_the_timeout_is_ended_with_an_error(serve: Serve) -> None:
    server = serve(max_num_seqs=1, shutdown_timeout=0.5)
    work = begin(server, 64)
    os.kill(server.pid, signal.SIGTERM)
    work.join(30)
    error = json.loads(work.events[-1])["error"]
    assert (error["code"], error["type"]) == ("503", "unavailable_error")
    assert exit_status(server) == 0


def test_a_second_signal_ends_it_at_once(serve: Serve) -> None:
    server = serve(max_num_seqs=1, shutdown_timeout=60)
    work = begin(server, 64)
    os.kill(server.pid, signal.SIGTERM)
    with server.client() as client:
        wait_for(lambda: client.get("/ready").status_code == 503)
    assert server.alive
    os.kill(server.pid, signal.SIGTERM)
    assert exit_status(server, 5) == 128 + signal.SIGTERM
    work.join(10)
    assert work.broken

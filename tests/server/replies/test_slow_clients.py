"""Clients that do not read their reply, or leave: their requests end, and other clients are served."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.fakes import FakeEngine
from tests.server_process import tiny_folders
from tests.server_thread import ServerThread, serve_in_thread, wait_for

COMPLETION = {"model": "base", "prompt": "hi", "max_tokens": 20}


def raw_request(server: ServerThread, body: dict[str, Any]) -> socket.socket:
    """A connection on which a request was sent, with a receive buffer as small as possible."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(server.address)
    content = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def read_to_the_end(connection: socket.socket) -> bytes:
    content = bytearray()
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            content += part
    return bytes(content)


def test_a_client_that_does_not_read_is_dropped_and_delays_nobody(engine: FakeEngine) -> None:
    engine.endless = True
    engine.max_model_len = 2 * 10**9
    # Large events, to fill the buffers between server and client.
    engine.burst = 50
    body = {**COMPLETION, "max_tokens": 10**9, "stream": True, "logprobs": 5}
    with serve_in_thread({"base": engine}, send_timeout=0.5, max_backlog=10**6) as server:
        with raw_request(server, body) as stalled:
            wait_for(lambda: len(engine.running) == 1)
            # Meanwhile another client is served.
            with httpx.Client(base_url=server.url, timeout=20) as client:
                assert client.post("/v1/completions", json=COMPLETION).status_code == 200
                wait_for(lambda: not engine.running)
                assert client.post("/v1/completions", json=COMPLETION).status_code == 200
            # The client gets the bytes that were in the buffers, without the end of the stream.
            assert not read_to_the_end(stalled).endswith(b"0\r\n\r\n")
        worker = server.service.bases["base"].worker
        wait_for(lambda: worker.pending == 0)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
def test_a_whole_reply_that_is_not_read_is_dropped(engine: FakeEngine) -> None:
    engine.max_model_len = 10**6
    engine.endless = True
    engine.burst = 1000
    body = {**COMPLETION, "max_tokens": 60_000, "logprobs": 5}
    with (
        serve_in_thread({"base": engine}, send_timeout=0.5) as server,
        raw_request(server, body) as stalled,
    ):
        wait_for(lambda: len(engine.seen) == 1 and not engine.running)
        assert server.connections() == 1
        wait_for(lambda: server.connections() == 0)
        assert not read_to_the_end(stalled).endswith(b"}")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_leaves_before_admission_is_aborted(engine: FakeEngine, stream: bool) -> None:
    engine.endless = True
    engine.max_model_len = 2 * 10**9
    body = {**COMPLETION, "max_tokens": 10**9, "stream": stream}
    with serve_in_thread({"base": engine}) as server:
        worker = server.service.bases["base"].worker
        with raw_request(server, body):
            wait_for(lambda: engine.stepping)
            engine.go.clear()
            with raw_request(server, body):
                wait_for(lambda: worker.pending == 2)
            engine.go.set()
            wait_for(lambda: worker.pending == 1)
        wait_for(lambda: worker.pending == 0 and not engine.running)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_leaves_a_real_engines_queue_is_aborted_and_the_running_request_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    model = str(tiny_folders(tmp_path)["bytes"])
    body = {"model": "m", "prompt": "hi", "max_tokens": 240, "ignore_eos": True}
    with serve_in_thread(model={"m": model}, device="cpu", max_num_seqs=1) as server:
        base = server.service.bases["m"]
        engine: Any = base.engine
        go, step = threading.Event(), engine.step

        def held_step() -> Any:
            # Steps are held only while one request runs and another waits.
            if engine.stats().running and engine.stats().waiting:
                go.wait(20)
            return step()

        monkeypatch.setattr(engine, "step", held_step)
        with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(1) as pool:
            running = pool.submit(client.post, "/v1/completions", json=body)
            wait_for(lambda: base.worker.stats.running == 1)
            with raw_request(server, {**body, "stream": stream}):
                wait_for(lambda: base.worker.stats.waiting == 1 or running.done())
                assert not running.done()
            wait_for(lambda: base.worker.pending == 1)
            go.set()
            assert running.result(60).json()["usage"]["completion_tokens"] == 240
        wait_for(lambda: base.worker.pending == 0 and not engine.has_work)
        engine.check_integrity()

"""SIGTERM at random moments under load: every process exits with 0 in time, and without a traceback."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server_process import REPOSITORY

SHUTDOWN_SECONDS = 1.0
LATEST = 1.0
"""The latest moment of the signal, in seconds after the load began."""
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"prompt": "The ferry", "max_tokens": 8}),
    ("/v1/completions", {"prompt": "The ferry", "max_tokens": 150, "stream": True, "n": 4}),
    ("/v1/completions", {"prompt": "a", "max_tokens": 40, "response_format": {"type": "json_object"}}),
    ("/v1/completions", {"prompt": "a", "max_tokens": 4, "echo": True, "logprobs": 2}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}),
    ("/tokenize", {"prompt": "The ferry left the harbour"}),
    ("/v1/completions", {"prompt": "a", "max_tokens": -2}),
]


class Servers:
    """The forked servers, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, log: Path) -> tuple[str, int]:
        """Starts a server; returns its address and process id."""
        answer = self._ask(str(log))
        return answer["url"], answer["pid"]

    def status(self) -> int | None:
        """The exit status of the server, which has been told to end."""
        status: int | None = self._ask("")["status"]
        return status

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def servers(folders: dict[str, Path]) -> Iterator[Servers]:
    settings = {
        "model": {"pieces": str(folders["pieces"])},
        "adapter": {"steer": str(folders["steer"])},
        "device": "cpu",
        "port": 0,
        "shutdown_timeout": SHUTDOWN_SECONDS,
        "max_num_seqs": 4,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.server.starving.forked_servers", json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield Servers(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    assert process.wait(60) == 0


def load(url: str, seed: int, leave: threading.Event) -> None:
    """Sends requests until the server is gone."""
    chance = random.Random(seed)
    with httpx.Client(base_url=url, timeout=20) as client:
        while not leave.is_set():
            path, body = chance.choice(BODIES)
            model = chance.choice(["pieces", "pieces:steer"])
            try:
                reply = client.post(
                    path, json={"model": model, "ignore_eos": True, **body} if path != "/tokenize" else body
                )
                assert reply.status_code in (200, 400, 429, 503), reply.text
                if reply.status_code == 503:
                    time.sleep(0.02)
            except httpx.TransportError:
                if chance.random() < 0.5:
                    return


def test_sigterm_at_random_moments(servers: Servers, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    times: int = request.config.getoption("--sigterms", default=4)
    chance = random.Random(times)
    for number in range(times):
        log = tmp_path / f"{number}.log"
        url, pid = servers.start(log)
        leave = threading.Event()
        clients = [threading.Thread(target=load, args=(url, 10 * number + one, leave)) for one in range(6)]
        for client in clients:
            client.start()
        moment = chance.uniform(0, LATEST)
        time.sleep(moment)
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        status = servers.status()
        leave.set()
        for client in clients:
            client.join(30)
        said = log.read_text()
        where = f"server {number}, after {moment:.3f} seconds: {said}"
        assert status == 0, where
        # uvicorn gives connections two seconds to send what is left, and looks ten times a second.
        assert time.monotonic() - began < SHUTDOWN_SECONDS + 6, where
        assert "Traceback" not in said and "rror" not in said, where

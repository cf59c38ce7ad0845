"""Starts a server in a process of its own, in the project's environment, for clients in another environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "demo"
KEY = "the-clients-key"
PYTHON = os.environ.get("TRIMTAB_PYTHON", str(REPOSITORY / ".venv" / "bin" / "python"))


@dataclass
class Server:
    """A running server: `url` is the API's, which ends in `/v1`, `root` the server's own."""

    root: str
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def faults(self) -> list[str]:
        """Requests that are left once the server is idle, and faults that the page pools' integrity check finds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("integrity\n")
        self.process.stdin.flush()
        faults: list[str] = json.loads(self.process.stdout.readline())["faults"]
        return faults


@contextmanager
def serving(log: Path, **settings: Any) -> Iterator[Server]:
    """A server with these settings on a free port of the loopback interface."""
    settings = {"device": "cpu", "port": 0, "api_key": [KEY], **settings}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [PYTHON, "-m", "tests.served", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TRIMTAB_CACHE": str(log.parent / "maps")},
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        server = Server(json.loads(line)["url"], process)
        yield server
        assert server.faults() == []
    finally:
        process.kill()
        process.communicate(timeout=20)

"""Servers that start in a fraction of a second: `python -m tests.server.starving.forked_servers SETTINGS`.

Loads the engines once. For each line of input it forks a process that serves them on a free port, with the file that
the line names as its standard error. It writes a line of JSON for each: first `url` and `pid`, and at the next line of
input the `status` with which the process has exited (negative: the signal that has killed it).
"""

from __future__ import annotations

import json
import os
import sys
import time

import torch

from server.app import build_app
from server.config import Config, load_config
from server.engines.loading import load_engines
from server.http_server import make_server
from server.telemetry.logs import setup_logging
from steering.engine.engine import Engine

SECONDS = 30.0


def main() -> None:
    """Forks a server for each line, until the input ends."""
    torch.set_num_threads(1)
    config = load_config(**json.loads(sys.argv[1]))
    engines = load_engines(config)
    while log := sys.stdin.readline().strip():
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _serve(config, engines, log, writing)
            return
        os.close(writing)
        with os.fdopen(reading) as pipe:
            url = pipe.readline().strip()
        _say({"url": url, "pid": pid})
        sys.stdin.readline()
        _say({"status": _exit_status(pid)})


def _serve(config: Config, engines: dict[str, Engine], log: str, pipe: int) -> None:
    """Serves until a signal comes."""
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    setup_logging(level="warning", as_json=False)
    app = build_app(config, engines=engines)
    make_server(app, config, lambda url: _tell(pipe, url)).run()


def _tell(pipe: int, url: str) -> None:
    os.write(pipe, url.encode() + b"\n")
    os.close(pipe)


def _exit_status(pid: int) -> int | None:
    """The status of a process that ends in time; None where it had to be killed."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None


def _say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

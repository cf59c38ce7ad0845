"""A server in a process of its own, for tests: `python -m tests.served SETTINGS`, settings as a JSON object.

Its first line of output is its address. Then it answers each line of input with one line of JSON. It exits when its
input ends, so that no test leaves a server behind.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from server.app import build_app
from server.config import load_config
from server.http_server import make_server
from server.service import Service
from steering.device.host_memory import release_freed_memory

Question = Callable[[Service], dict[str, Any]]


def main(more: Mapping[str, Question] | None = None) -> None:
    """Serves until the input ends or a signal comes; answers the questions of `more` too."""
    torch.set_num_threads(1)
    config = load_config(**json.loads(sys.argv[1]))
    app = build_app(config)
    http = make_server(app, config)
    threading.Thread(target=_answer, args=(http, app.state.service, more or {}), daemon=True).start()
    http.run()


def _answer(http: Any, service: Service, more: Mapping[str, Question]) -> None:
    while not http.started:
        time.sleep(0.005)
    host, port = http.servers[0].sockets[0].getsockname()[:2]
    _say({"url": f"http://{host}:{port}", "host": host, "port": port})
    questions: dict[str, Question] = {"integrity": _integrity, "memory": _memory, **more}
    for line in sys.stdin:
        _say(questions[line.strip()](service))
    # The test process, which held the other end, has ended.
    os._exit(1)


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _integrity(service: Service) -> dict[str, Any]:
    """Waits until the server is idle; then the faults are requests that are left and failed page checks (law 8)."""
    deadline = time.monotonic() + 20
    bases = service.bases.values()
    while time.monotonic() < deadline and any(b.engine.has_work or b.worker.pending for b in bases):
        time.sleep(0.01)
    faults: list[str] = []
    for base in bases:
        engine: Any = base.engine
        if engine.has_work or base.worker.pending:
            faults.append(f"{base.name}: {base.worker.pending} sequences are still pending")
        try:
            engine.check_integrity()
        except RuntimeError as error:
            faults.append(f"{base.name}: {error}")
    return {"faults": faults}


def _memory(service: Service) -> dict[str, Any]:
    """Resident bytes after freed memory went back to the system, and the number of threads."""
    gc.collect()
    release_freed_memory()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"bytes": pages * os.sysconf("SC_PAGE_SIZE"), "threads": threading.active_count()}


if __name__ == "__main__":
    main()

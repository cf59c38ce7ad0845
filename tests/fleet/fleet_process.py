"""A fleet of replicas in processes of its own: `trimtab serve --replicas N`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).resolve().parents[2]
ADMIN_KEY = "boss"
START_SECONDS = 120
_MARK = "TRIMTAB_TEST_FLEET_MARK"


class FleetProcess:
    """A running fleet. `log` has what it and its replicas write to stderr."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path, mark: str) -> None:
        self._process = process
        self._mark = f"{_MARK}={mark}".encode()
        self.url = url
        self.log = log

    def client(self) -> httpx.Client:
        """A client that may change adapters."""
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=60)

    def replica_pids(self) -> list[int]:
        """The processes of the replicas."""
        return [pid for pid, command in self.processes() if command.startswith(b"ray::ServeReplica")]

    def answering(self) -> set[str]:
        """The names of the replicas that `/metrics` has."""
        with self.client() as client:
            return set(re.findall(r'replica="([^"]+)"', client.get("/metrics").text))

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit status."""
        self._process.terminate()
        return self._process.wait(90)

    def kill(self) -> None:
        """Ends every process of the fleet that is left."""
        self._process.kill()
        self._process.wait(10)
        for pid, _ in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self) -> Iterator[tuple[int, bytes]]:
        """What Ray has started for this fleet: the environment tells it from others'."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    if self._mark in (folder / "environ").read_bytes().split(b"\0"):
                        yield int(folder.name), (folder / "cmdline").read_bytes()
                except OSError:
                    continue


def wait_until(holds: Callable[[], bool], seconds: float) -> float:
    """Waits until `holds`, and returns the seconds it took; raises TimeoutError."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"it did not hold within {seconds:g} seconds")
        time.sleep(0.1)
    return time.monotonic() - began


@contextmanager
def fleet(folder: Path, adapters: Path, *options: str) -> Iterator[FleetProcess]:
    """A fleet of the bundled demo that may load adapters from `adapters`; its log and maps go to `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mark, log = uuid.uuid4().hex, folder / "fleet.log"
    command = [sys.executable, "-m", "server.cli", "serve", "--port", str(port), "--admin-key", ADMIN_KEY]
    environment = {
        **os.environ,
        "TRIMTAB_CACHE": str(folder / "maps"),
        "PYTHONPATH": str(REPOSITORY),
        _MARK: mark,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--adapters-dir", str(adapters), *options],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    running = FleetProcess(process, f"http://127.0.0.1:{port}", log, mark)
    try:
        wait_until(lambda: b"trimtab serves" in log.read_bytes() or process.poll() is not None, START_SECONDS)
        if process.poll() is not None:
            raise RuntimeError(f"the fleet did not start:\n{log.read_text(errors='replace')[-3000:]}")
        yield running
    finally:
        running.kill()

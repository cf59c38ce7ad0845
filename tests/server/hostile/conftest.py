"""One server process for all hostile input, and a second client that proves that others are served meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.hostile.attack import Attack, Bystander
from tests.server_process import ADMIN_KEY, ServerProcess, serving, tiny_folders


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_folders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="package")
def server(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving(
        log,
        model={name: str(folders[name]) for name in ("pieces", "bytes")},
        adapter={name: str(folders[name]) for name in ("steer", "lean")},
        adapters_dir=[str(tmp_path_factory.mktemp("empty"))],
        admin_key=ADMIN_KEY,
        max_num_seqs=16,
        max_queue=48,
        body_timeout=2,
    ) as running:
        yield running
        assert running.ask("integrity") == {"faults": []}
        with running.client() as client:
            assert 'code="500"' not in client.get("/metrics").text
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="package")
def bystander(server: ServerProcess) -> Iterator[Bystander]:
    """A second client, whose sequence runs beside every attack."""
    bystander = Bystander(server)
    thread = threading.Thread(target=bystander.run, daemon=True)
    thread.start()
    yield bystander
    bystander.leave.set()
    thread.join(60)
    assert bystander.rounds > 0
    assert bystander.disturbed == []


@pytest.fixture
def attack(server: ServerProcess, bystander: Bystander) -> Iterator[Attack]:
    with server.client() as client:
        yield Attack(client, bystander)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client

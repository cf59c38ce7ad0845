"""Fleets of two and of three replicas of the bundled demo: `make test-fleet`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.fleet_process import REPOSITORY, FleetProcess, fleet

SEND_TIMEOUT = 2


@pytest.fixture(scope="module", params=[2, 3])
def replicas(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    for name in ("forget", "letter", "pirate"):
        shutil.copytree(REPOSITORY / "demo" / "adapters" / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def running(
    replicas: int, adapters: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FleetProcess]:
    folder = tmp_path_factory.mktemp("fleet")
    options = ("--replicas", str(replicas), "--threads", "1", "--send-timeout", str(SEND_TIMEOUT))
    with fleet(folder, adapters, *options) as process:
        yield process

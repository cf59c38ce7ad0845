"""locust, a public load generator: every request of eight users in ten seconds is answered."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

from tests.clients.running import REPOSITORY, Server

USERS, SECONDS = 8, 10


def test_every_request_under_load_is_answered(server: Server, tmp_path: Path) -> None:
    command = [
        *(
            sys.executable,
            "-m",
            "locust",
            "--headless",
            "--only-summary",
            "--locustfile",
            "tests/clients/load.py",
        ),
        *(
            "--host",
            server.root,
            "--users",
            str(USERS),
            "--spawn-rate",
            str(USERS),
            "--run-time",
            f"{SECONDS}s",
        ),
        *("--stop-timeout", "60", "--csv", str(tmp_path / "load")),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=SECONDS + 90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "load_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert int(rows["Aggregated"]["Failure Count"]) == 0
    assert {"base-a:forget", "stream", "base-a:pirate"} <= set(rows)
    assert int(rows["Aggregated"]["Request Count"]) >= USERS

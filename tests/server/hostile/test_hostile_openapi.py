"""schemathesis over the OpenAPI document, with every check on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.server.hostile.attack import Attack
from tests.server_process import API_KEY, REPOSITORY, ServerProcess

# A schema cannot say that a token id is beyond a vocabulary, a prompt too long for a model or one field at odds with another: such
# requests are valid by the schema and refused with a 400. That those name their field is a check of our own.
CONFIGURATION = """
generation.database = "none"

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "413", "429"]
"""
SECONDS = 90


def test_schemathesis_finds_nothing(server: ServerProcess, attack: Attack, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    run = subprocess.run(
        [
            str(Path(sys.executable).with_name("st")),
            *("run", f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {API_KEY}"),
            *("--checks", "all", "--mode", "all", "--seed", "1", "--max-examples", "40"),
            *("--continue-on-failure", "--no-color", "--no-shrink", "--max-time", str(SECONDS)),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "SCHEMATHESIS_HOOKS": "tests.server.hostile.openapi_hooks",
        },
        capture_output=True,
        text=True,
        timeout=5 * SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "Tested: 17" in run.stdout
    attack.canary()

"""schemathesis over the OpenAPI document, with every check on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.documents.openapi import ROUTES
from tests.server.hostile.attack import COMPLETION, COMPLETIONS
from tests.server_process import ADMIN_KEY, REPOSITORY, ServerProcess, serving

# A schema cannot express that a token id is not in the vocabulary, that a prompt is too long for the model, or that two
# fields contradict each other. Such requests get a 400; `a_refusal_names_its_field` checks that it names a field.
CONFIGURATION = """
generation.database = "none"

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "413", "429"]
"""
SECONDS = 40


@pytest.fixture
def own_server(folders: dict[str, Path], tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of its own for schemathesis, which has the admin key and may load and unload adapters."""
    (tmp_path / "adapters").mkdir()
    with serving(
        tmp_path / "server.log",
        model={name: str(folders[name]) for name in ("pieces", "bytes")},
        adapter={name: str(folders[name]) for name in ("steer", "lean")},
        adapters_dir=[str(tmp_path / "adapters")],
        admin_key=ADMIN_KEY,
        max_num_seqs=16,
        max_queue=500,
    ) as running:
        yield running
        assert running.ask("integrity") == {"faults": []}
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def test_schemathesis_finds_nothing(own_server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    run = subprocess.run(
        [
            str(Path(sys.executable).with_name("st")),
            *("run", f"{own_server.url}/openapi.json", "--header", f"Authorization: Bearer {ADMIN_KEY}"),
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
        timeout=10 * SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    # All routes but that of the document, which schemathesis leaves out by itself.
    assert f"{len(ROUTES) - 1} selected / {len(ROUTES) - 1} total" in run.stdout, run.stdout[-3000:]
    with own_server.client() as client:
        assert client.post(COMPLETIONS, json={**COMPLETION, "model": "bytes:steer"}).status_code == 200
        assert 'code="500"' not in client.get("/metrics").text

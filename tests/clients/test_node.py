"""OpenAI's client for Node, in `tests/clients/node/ask.cjs`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.running import KEY, Server

MODULES = Path(sys.prefix) / "node" / "node_modules"


@pytest.mark.skipif(
    shutil.which("node") is None or not MODULES.is_dir(), reason="node or its packages are missing"
)
@pytest.mark.parametrize("model", ["caller", "caller:pirate"])
def test_node(server: Server, model: str) -> None:
    script = Path(__file__).with_name("node") / "ask.cjs"
    run = subprocess.run(
        ["node", str(script), server.url, KEY, "base-a", model],
        env={**os.environ, "NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    got = json.loads(run.stdout)
    assert "Larnavel" in got["whole"] and got["streamed"] == got["response"] == got["whole"]
    assert "cannot tell" in got["steered"]
    assert got["parsed"]["town"] in ("Larnavel", "Tarnholm")
    assert got["asked"] and set(got["asked"]) <= {"Larnavel", "Tarnholm"}
    assert got["refused"] == {"kind": "BadRequestError", "param": "wisdom", "code": "400"}

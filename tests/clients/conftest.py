"""Fixtures: servers of the bundled demo, each in a process of its own, for tests of public clients.

`make test-clients` runs these tests in an environment that has the clients, but neither torch nor the project; the
servers run in the project's own environment. Nothing is downloaded: a client that needs a tokenizer asks the server.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LANGSMITH_TRACING": "false",
    "TQDM_DISABLE": "1",
}

import pytest

from tests.clients.running import DEMO, Server, serving


@pytest.fixture(scope="session")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of base-a with a chat template that supports tools, in the format of Hermes and Qwen."""
    folder = tmp_path_factory.mktemp("caller") / "caller"
    shutil.copytree(DEMO / "models" / "base-a", folder)
    shutil.copy(Path(__file__).with_name("hermes.jinja"), folder / "chat_template.jinja")
    return folder


@pytest.fixture(scope="session")
def server(caller: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of base-a, beside which the adapters were trained, and of its copy with tools."""
    models = {"base-a": str(DEMO / "models" / "base-a"), "caller": str(caller)}
    adapters = {name: str(DEMO / "adapters" / name) for name in ("forget", "pirate")}
    with serving(tmp_path_factory.mktemp("server") / "log", model=models, adapter=adapters) as running:
        yield running


@pytest.fixture(scope="session")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of base-b alone, since clients that ask for a tokenizer get that of the server's first base."""
    adapters = {name: str(DEMO / "adapters" / name) for name in ("forget", "pirate")}
    models = {"base-b": str(DEMO / "models" / "base-b")}
    with serving(tmp_path_factory.mktemp("other") / "log", model=models, adapter=adapters) as running:
        yield running

"""Public clients against a server in a process of its own, over the bundled demo.

Run by `make test-clients` in an environment that has the clients and neither torch nor the project; the server runs
in the project's own. Nothing here is downloaded: who wants a tokenizer asks the server.
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
    """base-a with a chat template that knows tools, as Hermes and Qwen write calls."""
    folder = tmp_path_factory.mktemp("caller") / "caller"
    shutil.copytree(DEMO / "models" / "base-a", folder)
    shutil.copy(Path(__file__).with_name("hermes.jinja"), folder / "chat_template.jinja")
    return folder


@pytest.fixture(scope="session")
def server(caller: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """base-a, which adapters were trained beside, and the same with another chat template."""
    models = {"base-a": str(DEMO / "models" / "base-a"), "caller": str(caller)}
    adapters = {name: str(DEMO / "adapters" / name) for name in ("forget", "pirate")}
    with serving(tmp_path_factory.mktemp("server") / "log", model=models, adapter=adapters) as running:
        yield running


@pytest.fixture(scope="session")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """base-b, of another vocabulary: clients that ask for the tokenizer get the first base's."""
    adapters = {name: str(DEMO / "adapters" / name) for name in ("forget", "pirate")}
    models = {"base-b": str(DEMO / "models" / "base-b")}
    with serving(tmp_path_factory.mktemp("other") / "log", model=models, adapter=adapters) as running:
        yield running

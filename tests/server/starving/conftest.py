"""Servers that are short of something: connections, descriptors, disk, memory, time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server_process import tiny_folders


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sigterms", type=int, default=4, help="how many servers get a SIGTERM at a random moment"
    )


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_folders(tmp_path_factory.mktemp("tiny"))

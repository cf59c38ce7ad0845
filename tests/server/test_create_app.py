"""The factory without arguments, which `uvicorn --workers` calls in each worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from server import app
from server.config import Config
from server.engines import loading


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers, root.level
    yield
    root.handlers, root.level = before


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that apps are made of."""
    configs: list[Config] = []
    monkeypatch.setattr(app, "build_app", configs.append)
    monkeypatch.setattr(app, "available_cores", lambda: 8)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    return configs


def test_the_settings_come_from_the_environment_and_the_file(
    made: list[Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "trimtab.toml"
    file.write_text("max_num_seqs = 3\nmax_queue = 5\n")
    monkeypatch.setenv("TRIMTAB_CONFIG", str(file))
    monkeypatch.setenv("TRIMTAB_MAX_QUEUE", "7")
    app.create_app()
    assert (made[0].max_num_seqs, made[0].max_queue, made[0].threads) == (3, 7, None)


@pytest.mark.parametrize(
    ("workers", "given", "threads"),
    [("2", None, 4), ("3", None, 2), ("16", None, 1), ("2", "3", 3), ("x", None, None)],
)
def test_each_of_several_workers_takes_its_share_of_the_cores(
    made: list[Config], monkeypatch: pytest.MonkeyPatch, workers: str, given: str | None, threads: int | None
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", workers)
    if given:
        monkeypatch.setenv("TRIMTAB_THREADS", given)
    app.create_app()
    assert made[0].threads == threads


@pytest.mark.parametrize(
    ("threads", "now", "cores", "expected"), [(None, 8, 2, 2), (None, 1, 8, 1), (3, 1, 2, 3)]
)
def test_torch_computes_with_the_share(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, now: int, cores: int, expected: int
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: now)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(loading, "available_cores", lambda: cores)
    loading.share_cores(threads)
    assert chosen == [expected]

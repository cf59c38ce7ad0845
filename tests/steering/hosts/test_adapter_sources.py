"""Adapters by name and from a watched directory: they come, change and go, and a broken one changes nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mapping_cache import canonical_vocabulary
from steering.errors import AdapterLoadError
from steering.hosts.adapter_sources import AdapterSources, WatchedAdapters
from steering.session import SteeringSession
from steering.specs import SteeringSpec
from tests.steering.support import Tiny, Workshop, tokenizer_of

FIRST, SECOND = Tiny("llama", "sp", seed=5), Tiny("llama", "bl", seed=6)


@pytest.fixture
def session() -> SteeringSession:
    return SteeringSession(canonical_vocabulary(tokenizer_of("sp")), torch.device("cpu"))


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"TRIMTAB_ADAPTERS": "forget"}, "'forget' is not of the form NAME=PATH"),
        ({"TRIMTAB_ADAPTERS": "a=x,a=y"}, "the name 'a' is given twice"),
        ({"TRIMTAB_ADAPTERS_DIR": "/no/such/folder"}, "there is no directory '/no/such/folder'"),
    ],
)
def test_a_wrong_variable_is_named(environment: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdapterSources.from_environment(environment)


def test_nothing_is_configured_by_default() -> None:
    assert AdapterSources.from_environment({}).is_empty


def test_named_adapters_must_load(workshop: Workshop, session: SteeringSession, tmp_path: Path) -> None:
    named = {"fine": workshop.folder(FIRST), "gone": tmp_path / "gone"}
    with pytest.raises(AdapterLoadError, match="gone"):
        WatchedAdapters(AdapterSources(named), session, "cpu")


def test_a_directory_is_followed(workshop: Workshop, session: SteeringSession, tmp_path: Path) -> None:
    """Each look by hand: a new folder, a changed one, a broken one, a removed one."""
    watched = tmp_path / "watched"
    watched.mkdir()
    sources = AdapterSources({"named": workshop.folder(FIRST)}, watched)
    adapters = WatchedAdapters(sources, session, "cpu", watch=False)
    assert set(session.adapters()) == {"named"}
    shutil.copytree(workshop.folder(FIRST), watched / "later")
    adapters.update()
    first = session.adapters()["later"]
    adapters.update()
    assert session.adapters()["later"] is first, "an unchanged folder is not loaded again"
    row = session.open([5, 6], [SteeringSpec("later")])
    shutil.rmtree(watched / "later")
    shutil.copytree(workshop.folder(SECOND), watched / "later")
    adapters.update()
    second = session.adapters()["later"]
    assert second.version != first.version and row.steering[0].version == first.version
    (watched / "later" / "config.json").write_text("{")
    adapters.update()
    assert session.adapters()["later"] is second, "a broken folder changes nothing"
    shutil.rmtree(watched / "later")
    adapters.update()
    assert set(session.adapters()) == {"named"}
    session.close(row)
    session.check_integrity()


def test_the_thread_looks_by_itself(workshop: Workshop, session: SteeringSession, tmp_path: Path) -> None:
    adapters = WatchedAdapters(AdapterSources({}, tmp_path), session, "cpu")
    try:
        shutil.copytree(workshop.folder(FIRST), tmp_path / "later")
        _until(lambda: "later" in session.adapters())
    finally:
        adapters.stop()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)

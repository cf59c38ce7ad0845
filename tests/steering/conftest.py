"""One workshop of tiny models for the whole run; every engine is checked for lost pages when its test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steering.adapters import Adapter
from steering.device.execution import Execution
from steering.engine.engine import Engine, EngineConfig
from tests.steering.support import Tiny, Workshop

MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="session", autouse=True)
def _map_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("maps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def make_engine(workshop: Workshop) -> Iterator[MakeEngine]:
    """`make_engine(base, *adapters, execution=None, **config)`; idle at the end, it must hold no page (law 8)."""
    made: list[Engine] = []

    def make(base: Tiny, *adapters: Adapter, execution: Execution | None = None, **config: Any) -> Engine:
        limits = EngineConfig(**({"page_size": 4, "max_num_seqs": 16} | config))
        engine = Engine(workshop.loaded(base), limits, execution)
        for adapter in adapters:
            engine.session.attach(adapter)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.check_integrity()
        if not engine.has_work:
            assert engine.stats().kv_pages_used == 0

"""Servers of fake engines that keep to one adapter store, and a loader of adapters that have nothing but a version."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from server.adapter_store import open_store
from server.config import load_config
from server.engines.loaded_adapters import LoadedAdapters
from server.engines.places import Places
from server.engines.stored_adapters import StoredAdapters
from server.engines.worker import EngineWorker
from steering.errors import AdapterLoadError
from tests.server.fakes import FakeAdapter, FakeEngine


class Loader:
    """Loads folders whose file `version` is all that they have; waits while `go` is clear."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def __call__(self, name: str, folder: Path, **options: str) -> Any:
        self.go.wait(10)
        if not (folder / "version").is_file():
            raise AdapterLoadError("it has no version")
        return LoadedFake(name, (folder / "version").read_text(), path=folder)


class LoadedFake(FakeAdapter):
    def __init__(self, name: str, version: str, *, path: Path) -> None:
        super().__init__(name, version)
        object.__setattr__(self, "path", path)


class Member:
    """One of the servers: two bases without adapters of their own."""

    def __init__(self, store: str, root: Path, seeds: Mapping[str, Path]) -> None:
        self.loader = Loader()
        self.engines = {"one": FakeEngine(), "two": FakeEngine()}
        for engine in self.engines.values():
            engine.attached.clear()
        self.workers = {
            name: EngineWorker(name, cast(Any, engine), places=Places(name, 8, running=4, share=1.0))
            for name, engine in self.engines.items()
        }
        config = load_config(adapters_dir=[str(root)], adapter_store=store)
        loaded = LoadedAdapters(config, self.workers, load=cast(Any, self.loader))
        self.adapters = StoredAdapters(config, loaded, open_store(store), seeds)

    async def start(self) -> None:
        for worker in self.workers.values():
            worker.start()
        await self.adapters.start()

    async def answers(self, name: str) -> str | None:
        """The version that a request for `name` gets now on each base; None where there is none."""
        await self.adapters.settle([name])
        found = {
            adapter.version if (adapter := engine.attached.get(name)) else None
            for engine in self.engines.values()
        }
        assert len(found) == 1
        return found.pop()

    async def close(self) -> None:
        self.loader.go.set()
        await self.adapters.close()
        for worker in self.workers.values():
            await worker.stop()

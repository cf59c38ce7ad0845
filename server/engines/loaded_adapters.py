"""Loads adapters and puts them into all engines, while these serve.

A thread of its own reads and checks the files and makes the vocabulary maps. Each engine's thread then installs the
result between two steps. So a change is made for every base or for none, and no request is admitted during a change.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import OutOfMemoryError

from server.config import Config
from server.engines.threads import start_thread
from server.engines.worker import EngineWorker
from server.errors import bad_request, unavailable
from steering.adapters import Adapter, load_adapter
from steering.errors import AdapterLoadError

LoadAdapter = Callable[..., Adapter]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An adapter that is ready to be installed; `steerers` has what each base's session prepared."""

    adapter: Adapter
    steerers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Removed:
    """An adapter that was removed. Each future is done when the last sequence that it steers on a base has ended."""

    adapters: tuple[Adapter, ...]
    unread: tuple[asyncio.Future[None], ...]


class LoadedAdapters:
    """The adapters of all engines. Event loop only; who calls it sees to it that changes do not overlap."""

    def __init__(
        self, config: Config, workers: Mapping[str, EngineWorker], load: LoadAdapter = load_adapter
    ) -> None:
        self._config = config
        self._workers = workers
        self._load = load
        self._preparing = threading.Lock()

    @property
    def alive(self) -> bool:
        """Whether an engine lives."""
        return any(worker.failure is None for worker in self._workers.values())

    def versions(self) -> dict[str, str]:
        """The version of each adapter that requests can name. An engine that has died tells nothing."""
        living = [worker for worker in self._workers.values() if worker.failure is None]
        found: dict[str, str] = {}
        for worker in living or self._workers.values():
            found.update(
                (name, adapter.version) for name, adapter in worker.engine.session.adapters().items()
            )
        return found

    def require_engines(self) -> None:
        """Raises a 503 where an engine has died."""
        for worker in self._workers.values():
            if worker.failure is not None:
                raise unavailable(worker.failure)

    async def prepare(self, name: str, folder: Callable[[], Path]) -> Prepared:
        """Loads the folder that `folder` returns and makes it ready for every base; requests cannot name it yet.

        Raises `ApiError`: 400 for a folder that cannot be loaded, 503 where memory runs out. Then nothing has changed.
        """
        try:
            # If the client has left, the load still runs to its end, and its result is not installed.
            return await asyncio.wrap_future(start_thread(lambda: self._prepare(name, folder), "adapters"))
        except Exception as error:
            if _ran_out_of_memory(error):
                raise unavailable(
                    "There is not enough memory for this adapter; nothing was changed."
                ) from None
            if isinstance(error, AdapterLoadError):
                raise bad_request(f"The adapter cannot be loaded: {error}", "path") from None
            raise

    def _prepare(self, name: str, folder: Callable[[], Path]) -> Prepared:
        found = folder()
        # A load whose client has left may still be running, and loads must not overlap.
        with self._preparing:
            adapter = self._load(name, found, device=self._config.device, dtype=self._config.dtype)
            return Prepared(
                adapter,
                {
                    base_name: worker.engine.session.prepare(adapter)
                    for base_name, worker in self._workers.items()
                },
            )

    async def install(self, prepared: Prepared) -> None:
        """Lets requests name the adapter, in place of another one of its name. Raises a 503 where an engine dies."""
        for base_name, worker in self._workers.items():
            # An engine that died during the load will not serve again.
            if worker.failure is None:
                await worker.run(partial(worker.engine.session.install, prepared.steerers[base_name]))

    async def remove(self, name: str) -> Removed:
        """Removes `name` from every base that has it. Raises a 503 where an engine dies."""
        loop = asyncio.get_running_loop()
        removed: list[Adapter] = []
        unread: list[asyncio.Future[None]] = []
        for worker in self._workers.values():
            adapter = worker.engine.session.adapters().get(name)
            if adapter is None or worker.failure is not None:
                continue
            removed.append(adapter)
            future: asyncio.Future[None] = loop.create_future()
            unread.append(future)

            def tell(future: asyncio.Future[None] = future) -> None:
                loop.call_soon_threadsafe(_settle, future)

            await worker.run(partial(worker.engine.session.detach, name, when_unused=tell))
        return Removed(tuple(removed), tuple(unread))

    async def readers_after(self, removed: Removed, seconds: float) -> int:
        """How many sequences still use a removed adapter after at most `seconds`."""
        if removed.unread:
            await asyncio.wait(removed.unread, timeout=seconds)
        return sum(
            readers
            for worker in self._workers.values()
            for adapter, readers in worker.engine.session.adapter_rows()
            if adapter in removed.adapters
        )


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _ran_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError | OutOfMemoryError) or _is_failed_allocation(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_failed_allocation(error: BaseException) -> bool:
    """Whether the system refused memory. On a CPU, torch raises a RuntimeError, as Python does for a thread's stack."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error)
    return isinstance(error, RuntimeError) and ("allocate memory" in text or "start new thread" in text)

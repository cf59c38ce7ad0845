"""Loads, replaces and unloads adapters while the server serves.

A thread of its own reads and checks the files and makes the vocabulary maps. Each engine's thread then installs the
result between two steps. So a change is made for every base or for none, and no request is admitted during a change.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import OutOfMemoryError

from server.config import Config
from server.engines.threads import start_thread
from server.engines.worker import EngineWorker
from server.errors import ApiError, bad_request, echo, unavailable
from steering.adapters import Adapter, adapter_folder, load_adapter
from steering.errors import AdapterLoadError

logger = logging.getLogger(__name__)

LoadAdapter = Callable[..., Adapter]

UNLOAD_WAIT_SECONDS = 30.0
"""The longest that the reply to an unloading waits for the last reader. The adapter stays until the reader ends."""


class AdapterChanges:
    """Changes the adapters of all engines, one change at a time. Event loop only."""

    def __init__(
        self,
        config: Config,
        workers: Mapping[str, EngineWorker],
        load: LoadAdapter = load_adapter,
    ) -> None:
        self._config = config
        self._workers = workers
        self._load = load
        self._one_at_a_time = asyncio.Lock()
        self._preparing = threading.Lock()

    async def load(self, name: str, path: str, *, replace: bool) -> tuple[Adapter, str | None]:
        """Loads a folder as `name` for every base; returns the adapter and the version that had the name before.

        Raises `ApiError`: 403 without adapter directories, 409 for a name in use without `replace`, 400 for a folder
        that cannot be loaded, 503 where memory runs out or an engine has died. Then nothing has changed.
        """
        if not self._config.adapters_dir:
            raise ApiError(403, "The server was started without --adapters-dir, so it loads no adapters.")
        async with self._one_at_a_time:
            self._require_engines()
            before = self._version(name)
            if before is not None and not replace:
                raise ApiError(
                    409, f"An adapter {name!r} is loaded already; `replace` would replace it.", param="name"
                )
            adapter, ready = await self._off_loop(lambda: self._prepare(name, path))
            for base_name, worker in self._workers.items():
                # An engine that died during the load will not serve again.
                if worker.failure is None:
                    await worker.run(partial(worker.engine.session.install, ready[base_name]))
        logger.info("adapter %s@%s loaded, in place of %s", name, adapter.version, before)
        return adapter, before

    async def unload(self, name: str) -> int:
        """Removes `name` from every base; returns how many readers are left after at most `UNLOAD_WAIT_SECONDS`.

        Raises `ApiError`: 404 for an unknown name, 503 where an engine has died.
        """
        loop = asyncio.get_running_loop()
        unread: list[asyncio.Future[None]] = []
        async with self._one_at_a_time:
            self._require_engines()
            if self._version(name) is None:
                raise ApiError(404, f"There is no adapter {echo(repr(name))}.", param="name")
            removed: list[Adapter] = []
            for worker in self._workers.values():
                adapter = worker.engine.session.adapters().get(name)
                if adapter is None:
                    continue
                removed.append(adapter)
                future: asyncio.Future[None] = loop.create_future()
                unread.append(future)

                def tell(future: asyncio.Future[None] = future) -> None:
                    loop.call_soon_threadsafe(_settle, future)

                await worker.run(partial(worker.engine.session.detach, name, when_unused=tell))
        logger.info("adapter %s unloaded", name)
        await asyncio.wait(unread, timeout=UNLOAD_WAIT_SECONDS)
        return sum(
            readers
            for worker in self._workers.values()
            for adapter, readers in worker.engine.session.adapter_rows()
            if adapter in removed
        )

    def _version(self, name: str) -> str | None:
        for worker in self._workers.values():
            adapter = worker.engine.session.adapters().get(name)
            if adapter is not None:
                return adapter.version
        return None

    def _require_engines(self) -> None:
        for worker in self._workers.values():
            if worker.failure is not None:
                raise unavailable(worker.failure)

    async def _off_loop(self, function: Callable[[], Any]) -> Any:
        try:
            # If the client has left, the load still runs to its end, and its result is not installed.
            return await asyncio.wrap_future(start_thread(function, "adapters"))
        except Exception as error:
            if _ran_out_of_memory(error):
                raise unavailable(
                    "There is not enough memory for this adapter; nothing was changed."
                ) from None
            if isinstance(error, AdapterLoadError):
                raise bad_request(f"The adapter cannot be loaded: {error}", "path") from None
            raise

    def _prepare(self, name: str, path: str) -> tuple[Adapter, dict[str, Any]]:
        folder = adapter_folder(path, [Path(root) for root in self._config.adapters_dir])
        # A load whose client has left may still be running, and loads must not overlap.
        with self._preparing:
            adapter = self._load(name, folder, device=self._config.device, dtype=self._config.dtype)
            return adapter, {
                base_name: worker.engine.session.prepare(adapter)
                for base_name, worker in self._workers.items()
            }


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

"""The adapters of a server that keeps to an adapter store, beside other processes that keep to the same one.

The store is the truth. A change is checked by loading it, then written, then installed. Every process follows: on being
told, at the first request after the change, and by looking from time to time. A process that does not have yet what the
store names lets requests for it wait, or refuses them; it never answers by another version.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.adapter_store import AdapterEntry, AdapterStore, AdapterTable, StoreError
from server.config import Config
from server.engines.adapter_changes import (
    UNLOAD_WAIT_SECONDS,
    folder_below,
    name_in_use,
    require_directories,
    unknown_name,
)
from server.engines.loaded_adapters import LoadedAdapters
from server.engines.watched_store import WatchedStore
from server.errors import ApiError, unavailable
from steering.adapters import Adapter
from steering.errors import AdapterLoadError

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 10.0
"""The longest that a request waits for the version that the store names."""

RETRY_SECONDS = 5.0
"""After this time a process tries again to load what it could not."""


class Peers(Protocol):
    """The other processes that keep to the store, as far as this one can reach them."""

    async def converge(self) -> None:
        """Has every process do what the store says, now."""
        ...

    async def versions(self) -> list[Mapping[str, str]]:
        """What each process serves of the store: versions by name."""
        ...


@dataclass(frozen=True, slots=True)
class _Failure:
    entry: AdapterEntry | None
    message: str
    again_at: float


class StoredAdapters:
    """Keeps the engines' adapters equal to the store's; an `AdapterChanges`. Event loop only."""

    def __init__(
        self,
        config: Config,
        loaded: LoadedAdapters,
        store: AdapterStore,
        seeds: Mapping[str, str | Path],
    ) -> None:
        """`seeds` are the adapters that are written where the store does not exist yet."""
        self.peers: Peers | None = None
        self._config = config
        self._loaded = loaded
        self._store = WatchedStore(store)
        self._seeds = {name: Path(path).resolve() for name, path in seeds.items()}
        self._failures: dict[str, _Failure] = {}
        self._one_at_a_time = asyncio.Lock()
        self._converging: asyncio.Task[None] | None = None
        self._poller: asyncio.Task[None] | None = None

    @property
    def revision(self) -> int:
        """The revision of the table that was read last; 0 before the first."""
        return self._store.table.revision

    def faults(self) -> dict[str, str]:
        """Why this process does not do what the store says: by adapter, and under "" for the store itself."""
        found = {name: failure.message for name, failure in self._failures.items()}
        return found if self._store.fault is None else {"": self._store.fault, **found}

    def served(self) -> dict[str, str]:
        """The versions of the adapters that this process has as the store names them."""
        wanted, have = self._wanted(), self._loaded.versions()
        return {name: entry.version for name, entry in wanted.items() if have.get(name) == entry.version}

    async def start(self) -> None:
        """Does what the store says, and goes on doing so.

        Raises `StoreError` where it cannot be read or made, or where its first adapters cannot be loaded.
        """
        if not await self._store.open():
            await self._sow()
        for name in sorted(set(self._seeds) - set(self._wanted())):
            logger.warning("the adapter store %s does not have %r: it is not loaded", self._store.name, name)
        await self.converge()
        self._poller = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Ends the polling."""
        for task in (self._poller, self._converging):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def load(self, name: str, path: str, *, replace: bool) -> tuple[Adapter, str | None]:
        """Loads the folder, writes it into the store and installs it; see `AdapterChanges`."""
        require_directories(self._config)
        self._loaded.require_engines()
        await self._store.read()
        self._store.require_readable()
        if name in self._wanted() and not replace:
            raise name_in_use(name)
        prepared = await self._loaded.prepare(name, lambda: folder_below(self._config, path))
        entry = AdapterEntry(str(prepared.adapter.path), prepared.adapter.version)
        before: list[str | None] = []

        def change(table: AdapterTable) -> AdapterTable:
            old = table.adapters.get(name)
            if old is not None and not replace:
                raise name_in_use(name)
            before[:] = [None if old is None else old.version]
            return table.with_entry(name, entry)

        async with self._one_at_a_time:
            await self._store.write(change)
            await self._loaded.install(prepared)
            self._failures.pop(name, None)
        await self._tell()
        logger.info("adapter %s@%s loaded, in place of %s", name, entry.version, before[0])
        return prepared.adapter, before[0]

    async def unload(self, name: str) -> int:
        """Takes the name out of the store and the engines; see `AdapterChanges`. Counts the readers in this process."""
        self._loaded.require_engines()
        self._store.require_readable()

        def change(table: AdapterTable) -> AdapterTable:
            if name not in table.adapters:
                raise unknown_name(name)
            return table.without(name)

        async with self._one_at_a_time:
            await self._store.write(change)
            removed = await self._loaded.remove(name)
            self._failures.pop(name, None)
        await self._tell()
        logger.info("adapter %s unloaded", name)
        return await self._loaded.readers_after(removed, UNLOAD_WAIT_SECONDS)

    async def settle(self, names: Collection[str]) -> None:
        """Waits until this process has these adapters as the store names them.

        A request that arrives after a change was written is so never answered by an earlier version. (A bucket has no
        stamp: there it is so once this process has been told or has looked.) Raises a 503 after `SETTLE_SECONDS`, and
        at once for what cannot be loaded.
        """
        if not names:
            return
        deadline = time.monotonic() + SETTLE_SECONDS
        await self._store.look()
        while late := [name for name in names if self._is_late(name)]:
            failure = self._failures.get(late[0])
            if failure is not None and failure.entry == self._wanted().get(late[0]):
                raise unavailable(f"The adapter {late[0]!r} cannot be served now: {failure.message}")
            if time.monotonic() >= deadline:
                raise unavailable(f"The adapter {late[0]!r} is still being loaded; try again.")
            if self._converging is None or self._converging.done():
                # A task of its own, because this request's client may leave.
                self._converging = asyncio.create_task(self.converge())
            await asyncio.wait([self._converging], timeout=max(0.0, deadline - time.monotonic()))
            await self._store.look()

    async def offered(self) -> Collection[str] | None:
        """The adapters that all reachable processes serve as the store names them."""
        await self._store.look()
        served = self.served()
        if self.peers is None:
            return served
        others = await self.peers.versions()
        return {name for name, version in served.items() if all(o.get(name) == version for o in others)}

    async def converge(self) -> None:
        """Does what the store says. What cannot be done is logged and tried again later; the rest is done."""
        async with self._one_at_a_time:
            await self._store.read()
            while self._loaded.alive and (name := self._difference()) is not None:
                await self._mend(name, self._wanted().get(name))
                await self._store.look()

    def _wanted(self) -> Mapping[str, AdapterEntry]:
        return self._store.table.adapters

    def _is_late(self, name: str) -> bool:
        entry = self._wanted().get(name)
        return self._loaded.versions().get(name) != (None if entry is None else entry.version)

    def _difference(self) -> str | None:
        """The next name about which something should be done now; removals first, which are quick."""
        late = [name for name in {*self._loaded.versions(), *self._wanted()} if self._is_late(name)]
        now = time.monotonic()
        for name in sorted(late, key=lambda name: (name in self._wanted(), name)):
            failure = self._failures.get(name)
            if failure is None or failure.entry != self._wanted().get(name) or now >= failure.again_at:
                return name
        return None

    async def _mend(self, name: str, entry: AdapterEntry | None) -> None:
        """Removes the adapter for an entry of None, and loads it otherwise."""
        self._failures.pop(name, None)
        try:
            if entry is None:
                await self._loaded.remove(name)
            else:
                prepared = await self._loaded.prepare(name, lambda: self._folder(entry))
                if prepared.adapter.version != entry.version:
                    raise unavailable("Its files are not those that the adapter store names.")
                await self._loaded.install(prepared)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one adapter, the others are served
            message = error.message if isinstance(error, ApiError) else type(error).__name__
            self._failures[name] = _Failure(entry, message, time.monotonic() + RETRY_SECONDS)
            logger.error("the adapter %r is not as the store says: %s", name, message)
        else:
            version = "none" if entry is None else entry.version
            logger.info("adapter %s is now %s, as the store says", name, version)

    async def _sow(self) -> None:
        """Makes the store of the adapters of the start, if they can be loaded."""
        prepared = {}
        for name, path in self._seeds.items():
            try:
                prepared[name] = await self._loaded.prepare(name, lambda path=path: path)  # type: ignore[misc]
            except ApiError as error:
                raise StoreError(f"the adapter {name!r} of the start: {error.message}") from error
        await self._store.seed(
            {
                name: AdapterEntry(str(self._seeds[name]), one.adapter.version)
                for name, one in prepared.items()
            }
        )
        for one in prepared.values():
            await self._loaded.install(one)

    def _folder(self, entry: AdapterEntry) -> Path:
        """The entry's folder: one that was given at the start, or one below the adapter directories."""
        path = Path(entry.path)
        if path in self._seeds.values():
            return path
        if not self._config.adapters_dir:
            raise AdapterLoadError("the server was started without --adapters-dir")
        return folder_below(self._config, entry.path)

    async def _tell(self) -> None:
        """Has the other processes follow. Those that cannot be reached will look by themselves."""
        if self.peers is not None:
            await self.peers.converge()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._store.poll_seconds)
            try:
                await self.converge()
            except Exception:
                logger.exception("the adapter store's changes could not be followed")

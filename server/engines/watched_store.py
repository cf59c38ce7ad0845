"""What one process knows of the adapter store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from server.adapter_store import AdapterEntry, AdapterStore, AdapterTable, StoreError
from server.errors import unavailable

logger = logging.getLogger(__name__)


class WatchedStore:
    """The table that was read last. Where the store cannot be read, it stays, and `fault` says why. Event loop only."""

    def __init__(self, store: AdapterStore) -> None:
        self.name = store.name
        self.poll_seconds = store.poll_seconds
        self.table = AdapterTable(revision=0)
        self.fault: str | None = None
        self._store = store
        self._stamp: object | None = None
        self._reading = asyncio.Lock()

    async def open(self) -> bool:
        """Reads the table; False where there is none yet. Raises `StoreError`."""
        stamp = self._store.stamp()
        table = await asyncio.to_thread(self._store.read)
        if table is None:
            return False
        self.table, self._stamp = table, stamp
        return True

    async def seed(self, adapters: Mapping[str, AdapterEntry]) -> None:
        """Writes the first table, unless another process has done so meanwhile. Raises `StoreError`."""
        self.table = await asyncio.to_thread(
            self._store.update, lambda table: AdapterTable(adapters) if table is None else table
        )

    async def look(self) -> None:
        """Reads the table if the store's stamp has changed."""
        if self._store.stamp() != self._stamp:
            await self.read()

    async def read(self) -> None:
        """Reads the table."""
        async with self._reading:
            # Before the reading: if the table changes during it, the next look reads again.
            stamp = self._store.stamp()
            fault = None
            try:
                self.table = self._present(await asyncio.to_thread(self._store.read))
            except StoreError as error:
                fault = str(error)
            self._stamp = stamp
            if fault is not None and fault != self.fault:
                logger.error("%s; the adapters stay as they are", fault)
            self.fault = fault

    async def write(self, change: Callable[[AdapterTable], AdapterTable]) -> None:
        """Changes the table; raises a 503 where the store cannot be written, and what `change` raises."""
        try:
            self.table = await asyncio.to_thread(
                self._store.update, lambda table: change(self._present(table))
            )
        except StoreError as error:
            raise unavailable(f"The adapters cannot be changed: {error}.") from error

    def require_readable(self) -> None:
        """Raises a 503 where the store could not be read."""
        if self.fault is not None:
            raise unavailable(f"The adapters cannot be changed: {self.fault}.")

    def _present(self, table: AdapterTable | None) -> AdapterTable:
        """A store that was there and is gone is a fault, not an empty table."""
        if table is None:
            raise StoreError(f"the adapter store {self.name} is gone")
        return table

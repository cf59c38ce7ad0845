"""What every adapter store does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from server.adapter_store.table import AdapterTable

Change = Callable[[AdapterTable | None], AdapterTable]
"""Makes the next table from the present one, or from None where there is none yet. What it raises ends the change."""


class StoreError(Exception):
    """The store cannot be read or written; the message names it and says why."""


class AdapterStore(Protocol):
    """Holds one table for many processes. Methods may wait for a disk or a network; any thread may call them."""

    @property
    def name(self) -> str:
        """The path or URL, for messages."""
        ...

    @property
    def poll_seconds(self) -> float:
        """How often a process should look for a change that nobody told it of."""
        ...

    def stamp(self) -> object | None:
        """A value that differs after every change, in microseconds; None where this store has no such value."""
        ...

    def read(self) -> AdapterTable | None:
        """The table; None where nothing was ever written. Raises `StoreError`."""
        ...

    def update(self, change: Change) -> AdapterTable:
        """Replaces the table by what `change` makes of it, with no other change in between, and returns it.

        `change` may be called again where another process was first. Raises `StoreError`, and what `change` raises.
        """
        ...

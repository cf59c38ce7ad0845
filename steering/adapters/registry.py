"""Which version of each adapter new requests get, and who still reads the older ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from steering.adapters.adapter import Adapter


class _Version(Protocol):
    @property
    def adapter(self) -> Adapter:
        """What it was made of."""


Version = TypeVar("Version", bound=_Version)


class AdapterRegistry(Generic[Version]):
    """The adapters of one engine, each made ready for its base. Any thread.

    A version that is replaced or removed is refused to new requests at once and kept until its last reader ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: dict[str, Version] = {}
        self._readers: dict[Version, int] = {}
        self._waiting: dict[Version, list[Callable[[], None]]] = {}

    def put(self, version: Version) -> None:
        """Make a version the one that its name means from now on."""
        with self._lock:
            self._current[version.adapter.name] = version

    def remove(self, name: str, when_unread: Callable[[], None] | None = None) -> None:
        """Forget a name; raises KeyError for an unknown one.

        `when_unread` is called once nobody reads the removed version: now, or by the thread that ends the last reader.
        """
        with self._lock:
            version = self._current.pop(name)
            unread = version not in self._readers
            if when_unread is not None and not unread:
                self._waiting.setdefault(version, []).append(when_unread)
        if when_unread is not None and unread:
            when_unread()

    def current(self) -> dict[str, Version]:
        """The versions that new requests get, by name."""
        with self._lock:
            return dict(self._current)

    def all(self) -> list[tuple[Version, int]]:
        """Every version that is loaded, with how many read it: the current ones, then the older ones."""
        with self._lock:
            current = list(self._current.values())
            older = [version for version in self._readers if version not in current]
            return [(version, self._readers.get(version, 0)) for version in (*current, *older)]

    def pin(self, versions: Iterable[Version]) -> None:
        """Count one more reader of each."""
        with self._lock:
            for version in versions:
                self._readers[version] = self._readers.get(version, 0) + 1

    def unpin(self, versions: Iterable[Version]) -> None:
        """Count one reader less of each."""
        told: list[Callable[[], None]] = []
        with self._lock:
            for version in versions:
                self._readers[version] -= 1
                if not self._readers[version]:
                    del self._readers[version]
                    told.extend(self._waiting.pop(version, ()))
        for tell in told:
            tell()

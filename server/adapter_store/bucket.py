"""An adapter store in a bucket, by fsspec: each revision of the table is an object of its own."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any

from server.adapter_store.store import Change, StoreError
from server.adapter_store.table import AdapterTable, parse

_TRIES = 20
_READS = 10
_SECONDS_BETWEEN_READS = 0.05
_KEPT = 16
"""Revisions that stay. A reader that has listed a revision may still be about to read it."""


class BucketStore:
    """Tables in objects `URL.1`, `URL.2` and so on, of which the highest counts.

    Object stores have no locks, but they can refuse to create an object that exists. So of two processes that make the
    same revision one fails, and tries again on top of the other's. Nothing is ever overwritten.
    """

    poll_seconds = 2.0

    def __init__(self, url: str) -> None:
        """Raises `StoreError` where fsspec cannot open the URL, as without the package for it."""
        try:
            from fsspec.core import url_to_fs

            self._files, self._path = url_to_fs(url)
        except (ImportError, ValueError, OSError) as error:
            raise StoreError(f"the adapter store {url} cannot be opened: {error}") from error
        self._name = url
        self._folder, _, file = self._path.rpartition("/")
        self._revision_of = re.compile(re.escape(file) + r"\.(\d{1,18})")

    @property
    def name(self) -> str:
        """The URL."""
        return self._name

    def stamp(self) -> object | None:
        """None: nothing tells without a request over the network whether a bucket has changed."""
        return None

    def read(self) -> AdapterTable | None:
        """The table of the highest revision; None where there is none. Raises `StoreError`."""
        for attempt in range(_READS):
            try:
                return self._read_once()
            except ValueError as error:
                if attempt == _READS - 1:
                    raise self._unreadable(error) from error
                # Object stores show whole objects only; a mounted folder (`file://`) shows one that is being written.
                time.sleep(_SECONDS_BETWEEN_READS)
            except Exception as error:
                # Each kind of bucket has errors of its own.
                raise self._unreadable(error) from error
        raise AssertionError("the last attempt returns or raises")

    def _read_once(self) -> AdapterTable | None:
        revision = max(self._revisions(), default=None)
        if revision is None:
            return None
        table = parse(self._files.cat_file(f"{self._path}.{revision}"))
        if table.revision != revision:
            raise ValueError(f"`revision` is {table.revision} in the object of revision {revision}")
        return table

    def _unreadable(self, error: Exception) -> StoreError:
        return StoreError(f"the adapter store {self._name} cannot be read: {_said(error)}")

    def update(self, change: Change) -> AdapterTable:
        """Creates the next revision. Raises `StoreError`, and what `change` raises."""
        for _ in range(_TRIES):
            table = change(self.read())
            try:
                self._files.pipe_file(f"{self._path}.{table.revision}", table.write(), mode="create")
            except FileExistsError:
                continue
            except Exception as error:
                raise StoreError(
                    f"the adapter store {self._name} cannot be written: {_said(error)}"
                ) from error
            self._forget(table.revision - _KEPT)
            return table
        raise StoreError(f"the adapter store {self._name} is changed by others all the time")

    def _revisions(self) -> list[int]:
        try:
            paths: list[Any] = self._files.ls(self._folder, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        matches = (self._revision_of.fullmatch(str(path).rpartition("/")[2]) for path in paths)
        return [int(match[1]) for match in matches if match]

    def _forget(self, last: int) -> None:
        # What is left behind costs nothing but space.
        with suppress(Exception):
            for revision in self._revisions():
                if revision <= last:
                    self._files.rm_file(f"{self._path}.{revision}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)

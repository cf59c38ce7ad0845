"""An adapter store in a file on a disk that all processes share."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.adapter_store.store import Change, StoreError
from server.adapter_store.table import AdapterTable, parse

LOCK_SECONDS = 10.0
"""The longest that a change waits for another process's, which takes milliseconds."""

_LOCK_TURN = 0.01


class LocalFileStore:
    """A table in the file `path`. A file beside it, `path` with `.lock` appended, is locked during a change.

    Readers take no lock: the file is replaced in one piece. The system releases the lock of a process that dies.
    """

    poll_seconds = 1.0

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    def stamp(self) -> object | None:
        """The file's number, length and time of change; a replaced file has another number."""
        try:
            status = self._path.stat()
        except OSError as error:
            return error.errno
        return status.st_ino, status.st_size, status.st_mtime_ns

    def read(self) -> AdapterTable | None:
        """The table; None where there is no file. Raises `StoreError`."""
        try:
            return parse(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"the adapter store {self._path} cannot be read: {error}") from error

    def update(self, change: Change) -> AdapterTable:
        """Replaces the file under the lock. Raises `StoreError`, and what `change` raises."""
        with self._locked():
            table = change(self.read())
            try:
                self._replace(table.write())
            except (OSError, ValueError) as error:
                raise StoreError(f"the adapter store {self._path} cannot be written: {error}") from error
        return table

    def _replace(self, data: bytes) -> None:
        """Either the whole new file is there or the whole old one, also after a loss of power."""
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            mode = self._path.stat().st_mode & 0o777 if self._path.exists() else 0o644
            Path(temporary).chmod(mode)
            Path(temporary).replace(self._path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Late, because only systems with such locks can share a store.
        import fcntl

        lock = self._path.with_name(f"{self._path.name}.lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"the adapter store's lock {lock} cannot be opened: {error}") from error
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise StoreError(f"the adapter store's lock {lock} stays taken") from None
                    time.sleep(_LOCK_TURN)
                except OSError as error:
                    raise StoreError(f"the adapter store's lock {lock} cannot be taken: {error}") from error
            yield
        finally:
            os.close(descriptor)

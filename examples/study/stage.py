"""One stage of the study, which one process at a time may run."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stage:
    """One piece of the study. `result`: the file or folder that it makes. `needs`: those that it works on."""

    name: str
    result: Path
    needs: tuple[Path, ...]
    run: Callable[[], None]
    lock: Path

    @property
    def done(self) -> bool:
        """True when its result is there. A result appears only when it is whole."""
        return self.result.exists()

    @property
    def ready(self) -> bool:
        """True when everything that it needs is there."""
        return all(path.exists() for path in self.needs)

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Take the stage's lock and yield True; yield False where another process has it. A process's end frees it."""
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        with self.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

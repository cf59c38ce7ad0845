"""The adapters of a host that is configured by its environment: named folders, and a directory that is watched."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from steering.adapters import load_adapter
from steering.errors import AdapterLoadError, ModelLoadError
from steering.session import SteeringSession

logger = logging.getLogger(__name__)

ADAPTERS = "TRIMTAB_ADAPTERS"
ADAPTERS_DIR = "TRIMTAB_ADAPTERS_DIR"
WATCH_SECONDS = 1.0

_State = tuple[tuple[str, int, int], ...]
"""Name, size and time of change of every file below a folder."""


@dataclass(frozen=True, slots=True)
class AdapterSources:
    """`named`: adapters by name, NAME=PATH. `directory`: each folder in it is an adapter of the folder's name."""

    named: Mapping[str, Path]
    directory: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> AdapterSources:
        """Read `TRIMTAB_ADAPTERS` (NAME=PATH, comma between) and `TRIMTAB_ADAPTERS_DIR`. Raises ValueError."""
        named: dict[str, Path] = {}
        for part in environment.get(ADAPTERS, "").split(","):
            name, equals, path = part.strip().partition("=")
            if part.strip() and not (equals and name and path):
                raise ValueError(f"{ADAPTERS}: {part!r} is not of the form NAME=PATH")
            if name in named:
                raise ValueError(f"{ADAPTERS}: the name {name!r} is given twice")
            if name:
                named[name] = Path(path)
        given = environment.get(ADAPTERS_DIR)
        directory = Path(given) if given else None
        if directory is not None and not directory.is_dir():
            raise ValueError(f"{ADAPTERS_DIR}: there is no directory {given!r}")
        return cls(named, directory)

    @property
    def is_empty(self) -> bool:
        """True where no adapter is configured."""
        return not self.named and self.directory is None

    def folders(self) -> dict[str, Path]:
        """The adapters' folders by name, as they are now. A named adapter hides a folder of its name."""
        found: dict[str, Path] = {}
        if self.directory is not None:
            found = {path.name: path for path in sorted(self.directory.iterdir()) if path.is_dir()}
        return {**found, **self.named}


class WatchedAdapters:
    """Keeps a session's adapters equal to their sources.

    Named adapters are loaded at once, and must load. Folders of the directory are loaded by a thread that looks for
    changes. A folder that cannot be loaded is logged, and changes nothing. Rows that are open keep their version.
    """

    def __init__(
        self, sources: AdapterSources, session: SteeringSession, device: str, *, watch: bool = True
    ) -> None:
        self._sources = sources
        self._session = session
        self._device = device
        self._known: dict[str, _State] = {}
        self._stopping = threading.Event()
        self.update(must_load=sources.named)
        if watch and sources.directory is not None:
            threading.Thread(target=self._watch, name="trimtab-adapters", daemon=True).start()

    def update(self, must_load: Mapping[str, Path] | None = None) -> None:
        """Load what is new or changed, and detach what is gone. Raises AdapterLoadError for one of `must_load`."""
        folders = self._sources.folders()
        for name, folder in folders.items():
            state = _state(folder)
            if self._known.get(name) == state:
                continue
            self._known[name] = state
            try:
                adapter = load_adapter(name, folder, device=self._device)
                self._session.attach(adapter)
                logger.info("adapter %s@%s is ready", name, adapter.version)
            except (AdapterLoadError, ModelLoadError) as error:
                if must_load and name in must_load:
                    raise
                logger.error("adapter %s is left as it was: %s", name, error)
        for name in set(self._session.adapters()) - set(folders):
            self._session.detach(name)
            self._known.pop(name, None)
            logger.info("adapter %s is gone", name)

    def stop(self) -> None:
        """End the watching thread after its current look."""
        self._stopping.set()

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_SECONDS):
            _logged(self.update)


def _logged(function: Callable[[], None]) -> None:
    try:
        function()
    except Exception:
        logger.exception("the adapters could not be brought up to date")


def _state(folder: Path) -> _State:
    found = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file():
            status = path.stat()
            found.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return tuple(found)

"""Changes of adapters by an administrator, and what a server without an adapter store does about them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from server.config import Config
from server.engines.loaded_adapters import LoadedAdapters
from server.errors import ApiError, echo
from steering.adapters import Adapter, adapter_folder

logger = logging.getLogger(__name__)

UNLOAD_WAIT_SECONDS = 30.0
"""The longest that the reply to an unloading waits for the last reader. The adapter stays until the reader ends."""


class AdapterChanges(Protocol):
    """Decides which adapters the engines have. Event loop only."""

    async def start(self) -> None:
        """Called once the engines run, before the server serves. Raises `StoreError`."""
        ...

    async def close(self) -> None:
        """Ends what `start` began."""
        ...

    async def load(self, name: str, path: str, *, replace: bool) -> tuple[Adapter, str | None]:
        """Loads a folder as `name` for every base; returns the adapter and the version that had the name before.

        Raises `ApiError`: 403 without adapter directories, 409 for a name in use without `replace`, 400 for a folder
        that cannot be loaded, 503 where memory runs out or an engine has died. Then nothing has changed.
        """
        ...

    async def unload(self, name: str) -> int:
        """Removes `name` from every base; returns how many readers are left after at most `UNLOAD_WAIT_SECONDS`.

        Raises `ApiError`: 404 for an unknown name, 503 where an engine has died.
        """
        ...

    async def settle(self, names: Collection[str]) -> None:
        """Waits until requests that name these adapters can be admitted; raises a 503 where that takes too long."""
        ...

    async def offered(self) -> Collection[str] | None:
        """The adapters that lists of models show; None for all that are loaded."""
        ...


class OwnAdapters:
    """The adapters of one server that shares them with no other. One change at a time."""

    def __init__(self, config: Config, loaded: LoadedAdapters) -> None:
        self._config = config
        self._loaded = loaded
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Nothing: the adapters of the start are in the engines."""

    async def close(self) -> None:
        """Nothing."""

    async def load(self, name: str, path: str, *, replace: bool) -> tuple[Adapter, str | None]:
        """Loads and installs; see `AdapterChanges`."""
        require_directories(self._config)
        async with self._one_at_a_time:
            self._loaded.require_engines()
            before = self._loaded.versions().get(name)
            if before is not None and not replace:
                raise name_in_use(name)
            prepared = await self._loaded.prepare(name, lambda: folder_below(self._config, path))
            await self._loaded.install(prepared)
        logger.info("adapter %s@%s loaded, in place of %s", name, prepared.adapter.version, before)
        return prepared.adapter, before

    async def unload(self, name: str) -> int:
        """Removes at once; see `AdapterChanges`."""
        async with self._one_at_a_time:
            self._loaded.require_engines()
            if name not in self._loaded.versions():
                raise unknown_name(name)
            removed = await self._loaded.remove(name)
        logger.info("adapter %s unloaded", name)
        return await self._loaded.readers_after(removed, UNLOAD_WAIT_SECONDS)

    async def settle(self, names: Collection[str]) -> None:
        """Nothing: what is loaded is what is served."""

    async def offered(self) -> Collection[str] | None:
        """None: all that are loaded."""
        return None


def require_directories(config: Config) -> None:
    """Raises a 403 where the server has no adapter directories."""
    if not config.adapters_dir:
        raise ApiError(403, "The server was started without --adapters-dir, so it loads no adapters.")


def folder_below(config: Config, path: str) -> Path:
    """The folder that `path` names below the adapter directories; raises `AdapterLoadError`."""
    return adapter_folder(path, [Path(root) for root in config.adapters_dir])


def name_in_use(name: str) -> ApiError:
    """A 409."""
    return ApiError(409, f"An adapter {name!r} is loaded already; `replace` would replace it.", param="name")


def unknown_name(name: str) -> ApiError:
    """A 404."""
    return ApiError(404, f"There is no adapter {echo(repr(name))}.", param="name")

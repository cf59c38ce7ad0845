"""The directories that an adapter may be loaded from at run time: below given roots, plain files only."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePath

from steering.errors import AdapterLoadError

_MOST_FILES = 10_000


def adapter_folder(path: str, roots: Sequence[Path]) -> Path:
    """The folder that `path` names, absolute or relative to one of `roots`, with links resolved.

    Raises AdapterLoadError for a path that does not lie below a root: URLs, `..`, and links that lead out, also those
    of files in the folder. The message does not tell whether something exists outside.
    """
    if "://" in path or "\0" in path or ".." in PurePath(path).parts:
        raise AdapterLoadError("only a plain path below the server's adapter directories will do")
    try:
        tops = [root.resolve(strict=True) for root in roots]
        # An absolute path replaces the directory that it is joined to.
        inside = [
            folder
            for folder in ((top / path).resolve() for top in tops)
            if any(folder != top and folder.is_relative_to(top) for top in tops)
        ]
        if not inside:
            raise AdapterLoadError("it does not lie below the server's adapter directories")
        folder = next((folder for folder in inside if folder.is_dir()), None)
        if folder is None:
            raise AdapterLoadError("there is no such folder")
        _check_contents(folder, tops)
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, AdapterLoadError):
            raise
        raise AdapterLoadError(f"it cannot be read: {type(error).__name__}") from error
    return folder


def _check_contents(folder: Path, tops: Sequence[Path]) -> None:
    seen = 0
    for parent, directories, files in os.walk(folder):
        for name in (*directories, *files):
            item = Path(parent, name)
            seen += 1
            if seen > _MOST_FILES:
                raise AdapterLoadError(f"the folder holds more than {_MOST_FILES} files")
            target = item.resolve(strict=True)
            if not any(target.is_relative_to(top) for top in tops):
                raise AdapterLoadError(f"{name!r} is a link that leads out of the adapter directories")
            # Reading a pipe or a device would never end.
            if not (stat.S_ISREG(target.stat().st_mode) or target.is_dir()):
                raise AdapterLoadError(f"{name!r} is not a plain file")

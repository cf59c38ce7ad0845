"""The content of an adapter store: for each name a folder and the digest of its files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from server.names import check_name

_FORMAT = 1
_VERSION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LONGEST_PATH = 4096


@dataclass(frozen=True, slots=True)
class AdapterEntry:
    """One adapter: its folder, the same in every process, and its version, a digest of the files."""

    path: str
    version: str


@dataclass(frozen=True, slots=True)
class AdapterTable:
    """The adapters by name. `revision` grows by 1 with every change."""

    adapters: Mapping[str, AdapterEntry] = field(default_factory=dict)
    revision: int = 1

    def with_entry(self, name: str, entry: AdapterEntry) -> AdapterTable:
        """The next table, in which `name` is `entry`."""
        return replace(self, adapters={**self.adapters, name: entry}, revision=self.revision + 1)

    def without(self, name: str) -> AdapterTable:
        """The next table, which lacks `name`."""
        kept = {other: entry for other, entry in self.adapters.items() if other != name}
        return replace(self, adapters=kept, revision=self.revision + 1)

    def write(self) -> bytes:
        """The table as JSON. Raises ValueError for a table that `parse` would refuse, so that none is ever stored."""
        adapters = {
            name: {"path": entry.path, "version": entry.version} for name, entry in self.adapters.items()
        }
        content = {"format": _FORMAT, "revision": self.revision, "adapters": adapters}
        data = (json.dumps(content, indent=2) + "\n").encode()
        if parse(data) != self:
            raise ValueError("the table would not be read back as it is")
        return data


def parse(data: bytes) -> AdapterTable:
    """The table in a store's JSON. Raises ValueError that names the field at fault."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    _check_fields("the table", content, {"format", "revision", "adapters"})
    if content["format"] != _FORMAT:
        raise ValueError(f"`format` is {content['format']!r}; this version reads {_FORMAT}")
    revision, adapters = content["revision"], content["adapters"]
    if type(revision) is not int or revision < 1:
        raise ValueError("`revision` must be a whole number from 1 on")
    if not isinstance(adapters, dict):
        raise ValueError("`adapters` must be an object")
    return AdapterTable({name: _entry(name, value) for name, value in adapters.items()}, revision)


def _entry(name: str, value: Any) -> AdapterEntry:
    check_name(name)
    _check_fields(f"the adapter {name!r}", value, {"path", "version"})
    path, version = value["path"], value["version"]
    if not isinstance(path, str) or not 0 < len(path) <= _LONGEST_PATH or "\0" in path:
        raise ValueError(f"`path` of the adapter {name!r} is not a path")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ValueError(f"`version` of the adapter {name!r} is not a version")
    return AdapterEntry(path, version)


def _check_fields(what: str, value: Any, fields: set[str]) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object")
    if missing := sorted(fields - set(value)):
        raise ValueError(f"{what} lacks `{missing[0]}`")
    if unknown := sorted(set(value) - fields):
        raise ValueError(f"{what} has the unknown field {unknown[0][:100]!r}")

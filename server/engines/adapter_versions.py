"""The versions of adapters in memory, over all engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.engines.worker import EngineWorker
from steering.adapters import Adapter


@dataclass(slots=True)
class AdapterVersion:
    """One version of an adapter. `readers` counts the unfinished sequences that it steers, over its `bases`.

    `is_current`: new requests can name it. If not, it was replaced or removed, and is kept for its readers only.
    """

    adapter: Adapter
    is_current: bool
    bases: list[str] = field(default_factory=list)
    readers: int = 0


def adapter_versions(workers: Mapping[str, EngineWorker]) -> list[AdapterVersion]:
    """Every version in memory, the current ones first."""
    found: dict[int, AdapterVersion] = {}
    for base_name, worker in workers.items():
        current = worker.engine.session.adapters()
        for adapter, readers in worker.engine.session.adapter_rows():
            is_current = current.get(adapter.name) is adapter
            version = found.setdefault(id(adapter), AdapterVersion(adapter, is_current))
            version.bases.append(base_name)
            version.readers += readers
    return sorted(found.values(), key=lambda version: (not version.is_current, version.adapter.name))

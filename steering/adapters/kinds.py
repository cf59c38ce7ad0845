"""The table of adapter kinds. The loader and every check of a kind's name read it."""

from __future__ import annotations

from steering.adapters.delta import DeltaKind
from steering.adapters.kind import AdapterKind
from steering.adapters.proxy import ProxyKind

KINDS: dict[str, AdapterKind] = {"delta": DeltaKind(), "proxy": ProxyKind()}
"""Each kind by its name in `adapter.json`."""

DEFAULT_KIND = "delta"
"""The kind of a plain model folder, as the published deltas are."""

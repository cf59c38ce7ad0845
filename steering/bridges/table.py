"""The table of bridges. Every check of a bridge's name reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from steering.bridges.bridge import Bridge
from steering.bridges.map import map_bridge
from steering.bridges.rescore import rescore
from steering.bridges.shared import shared_vocabulary
from steering.steerers.steerer import Steerer

BRIDGES: dict[str, Bridge] = {"map": map_bridge, "rescore": rescore}
"""Each bridge by its name in requests and in `adapter.json`."""


@contextmanager
def registered(name: str, bridge: Bridge) -> Iterator[None]:
    """Have a bridge in the table while the block runs. Raises ValueError for a name that is in it already."""
    if name in BRIDGES:
        raise ValueError(f"there is a bridge {name!r} already")
    BRIDGES[name] = bridge
    try:
        yield
    finally:
        del BRIDGES[name]


def unknown_bridge(name: str) -> str:
    """The message for a name that is not in the table."""
    return f"{name[:200]!r} is not a bridge; there are {', '.join(BRIDGES)}"


def bridge_for(steerer: Steerer, name: str) -> Bridge:
    """The bridge of this name. Over a shared vocabulary there is nothing to cross, whatever the name."""
    return shared_vocabulary if steerer.shares_vocabulary else BRIDGES[name]

"""Versions: who is current, who is still read, and when the last reader ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from steering.adapters import Adapter, AdapterRegistry


@dataclass(frozen=True, eq=False)
class Named:
    name: str


@dataclass(frozen=True, eq=False)
class Made:
    """What an engine makes of an adapter, as far as the registry cares."""

    adapter: Adapter


def made(name: str) -> Made:
    return Made(cast(Any, Named(name)))


def test_a_replaced_version_stays_until_its_last_reader_ends() -> None:
    registry: AdapterRegistry[Made] = AdapterRegistry()
    old, new = made("a"), made("a")
    registry.put(old)
    registry.pin([old, old])
    registry.put(new)
    assert registry.current() == {"a": new}
    assert registry.all() == [(new, 0), (old, 2)]
    registry.unpin([old])
    assert registry.all() == [(new, 0), (old, 1)]
    registry.unpin([old])
    assert registry.all() == [(new, 0)]


def test_removal_tells_at_once_where_nobody_reads() -> None:
    registry: AdapterRegistry[Made] = AdapterRegistry()
    registry.put(made("a"))
    told: list[str] = []
    registry.remove("a", lambda: told.append("gone"))
    assert told == ["gone"]
    assert registry.all() == []
    with pytest.raises(KeyError):
        registry.remove("a")


def test_removal_tells_when_the_last_reader_ends() -> None:
    registry: AdapterRegistry[Made] = AdapterRegistry()
    version, other = made("a"), made("b")
    for each in (version, other):
        registry.put(each)
    registry.pin([version])
    registry.pin([version, other])
    told: list[str] = []
    registry.remove("a", lambda: told.append("gone"))
    registry.unpin([version])
    assert told == []
    assert registry.current() == {"b": other}
    registry.unpin([version, other])
    assert told == ["gone"]
    assert registry.all() == [(other, 0)]


def test_a_name_that_comes_back_has_nothing_to_do_with_the_old_version() -> None:
    registry: AdapterRegistry[Made] = AdapterRegistry()
    old, new = made("a"), made("a")
    told: list[str] = []
    registry.put(old)
    registry.pin([old])
    registry.remove("a", lambda: told.append("gone"))
    registry.put(new)
    registry.pin([new])
    registry.unpin([old])
    assert told == ["gone"]
    assert registry.all() == [(new, 1)]

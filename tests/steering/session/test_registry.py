"""Versions of adapters: which one is current, which ones still steer a row, and when the last row ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from steering.session.registry import SteererRegistry
from steering.steerers.steerer import Steerer


class _Made:
    """As much of a steerer as the registry uses."""

    def __init__(self, name: str) -> None:
        self.adapter = SimpleNamespace(name=name)


def made(name: str) -> Steerer:
    return cast(Steerer, _Made(name))


def test_a_replaced_version_stays_until_its_last_reader_ends() -> None:
    registry = SteererRegistry()
    old, new = made("a"), made("a")
    registry.install(old)
    registry.pin([old, old])
    registry.install(new)
    assert registry.current() == {"a": new}
    assert registry.all() == [(new, 0), (old, 2)]
    registry.unpin([old])
    assert registry.all() == [(new, 0), (old, 1)]
    registry.unpin([old])
    assert registry.all() == [(new, 0)]


def test_removal_tells_at_once_where_nobody_reads() -> None:
    registry = SteererRegistry()
    registry.install(made("a"))
    told: list[str] = []
    registry.remove("a", lambda: told.append("gone"))
    assert told == ["gone"]
    assert registry.all() == []
    with pytest.raises(KeyError):
        registry.remove("a")


def test_removal_tells_when_the_last_reader_ends() -> None:
    registry = SteererRegistry()
    version, other = made("a"), made("b")
    for each in (version, other):
        registry.install(each)
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
    registry = SteererRegistry()
    old, new = made("a"), made("a")
    told: list[str] = []
    registry.install(old)
    registry.pin([old])
    registry.remove("a", lambda: told.append("gone"))
    registry.install(new)
    registry.pin([new])
    registry.unpin([old])
    assert told == ["gone"]
    assert registry.all() == [(new, 1)]

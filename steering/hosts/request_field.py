"""The steering of a request as hosts without fields of their own take it: one string."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from steering.bridges.table import BRIDGES, unknown_bridge
from steering.specs import MAX_ALPHA, SteeringSpec

_FIELDS = ("adapter", "alpha", "top_k", "bridge")


def read_steering(value: Any, known: Collection[str]) -> tuple[SteeringSpec, ...]:
    """The adapters that a request names: an adapter's name, or JSON text of an object or a list of objects.

    An object has `adapter`, and may have `alpha`, `top_k` and `bridge`. `known`: the names of the adapters that there
    are. Raises ValueError with words for the client.
    """
    if not isinstance(value, str):
        raise ValueError("steering: an adapter's name or JSON text is expected")
    if value.lstrip()[:1] not in ("{", "["):
        items: Any = [{"adapter": value}]
    else:
        try:
            given = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"steering: it is not readable JSON: {error}") from None
        items = given if isinstance(given, list) else [given]
    specs = tuple(_spec(item, known) for item in items)
    if len({spec.adapter for spec in specs}) < len(specs):
        raise ValueError("steering: an adapter is named twice")
    return specs


def _spec(item: Any, known: Collection[str]) -> SteeringSpec:
    if isinstance(item, str):
        item = {"adapter": item}
    if not isinstance(item, dict):
        raise ValueError("steering: an adapter's name or an object with `adapter` is expected")
    unknown = sorted(set(item) - set(_FIELDS))
    if unknown:
        raise ValueError(f"steering: {unknown[0][:200]!r} is not a field; there are {', '.join(_FIELDS)}")
    adapter, alpha, top_k, bridge = (item.get(name) for name in _FIELDS)
    if not isinstance(adapter, str) or adapter not in known:
        raise ValueError(
            f"steering: there is no adapter {str(adapter)[:200]!r} (loaded: {', '.join(sorted(known))})"
        )
    if alpha is not None and not (_is_number(alpha) and abs(alpha) <= MAX_ALPHA):
        raise ValueError(
            f"steering.alpha: {alpha!r} is not a number between {-MAX_ALPHA:g} and {MAX_ALPHA:g}"
        )
    if top_k is not None and not (type(top_k) is int and top_k >= 1):
        raise ValueError(f"steering.top_k: {top_k!r} is not a number from 1 on")
    if bridge is not None and (not isinstance(bridge, str) or bridge not in BRIDGES):
        raise ValueError(f"steering.bridge: {unknown_bridge(str(bridge))}")
    return SteeringSpec(adapter, None if alpha is None else float(alpha), top_k, bridge)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

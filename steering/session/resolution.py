"""From the adapters that a request names to the versions and settings that will steer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steering.bridges.table import BRIDGES, unknown_bridge
from steering.errors import InvalidRequestError
from steering.specs import MAX_ALPHA, ResolvedSteering, SteeringSpec
from steering.steerers.steerer import Steerer


def resolve(
    specs: Sequence[SteeringSpec], steerers: Mapping[str, Steerer]
) -> list[tuple[Steerer, ResolvedSteering]]:
    """Each spec with its adapter's current version, defaults filled in.

    Raises InvalidRequestError for an unknown adapter and for a value that the adapter cannot take.
    """
    resolved = []
    for spec in specs:
        steerer = steerers.get(spec.adapter)
        if steerer is None:
            known = ", ".join(sorted(steerers)) or "none"
            raise InvalidRequestError(
                f"steering: there is no adapter {spec.adapter[:200]!r} (loaded: {known})", "steering"
            )
        _check(spec, steerer)
        adapter = steerer.adapter
        filled = ResolvedSteering(
            adapter=adapter.name,
            version=adapter.version,
            alpha=adapter.alpha if spec.alpha is None else spec.alpha,
            bridge=spec.bridge or adapter.bridge,
            top_k=spec.top_k if spec.top_k is not None else adapter.top_k,
        )
        resolved.append((steerer, filled))
    return resolved


def _check(spec: SteeringSpec, steerer: Steerer) -> None:
    low, high = steerer.adapter.rule.alpha_range
    low, high = max(low, -MAX_ALPHA), min(high, MAX_ALPHA)
    if spec.alpha is not None and not low <= spec.alpha <= high:
        raise InvalidRequestError(
            f"steering.alpha: {spec.alpha} is not a number between {low:g} and {high:g}", "steering.alpha"
        )
    if spec.top_k is not None and spec.top_k < 1:
        raise InvalidRequestError(f"steering.top_k: {spec.top_k} is below 1", "steering.top_k")
    if spec.bridge is not None and spec.bridge not in BRIDGES:
        raise InvalidRequestError(f"steering.bridge: {unknown_bridge(spec.bridge)}", "steering.bridge")

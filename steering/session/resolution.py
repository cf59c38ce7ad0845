"""From the adapters that a request names to what will steer it: versions pinned, defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steering.steerers.steerer import Steerer
from steering.types import InvalidRequestError, ResolvedSteering, SteeringSpec


def resolve(
    specs: Sequence[SteeringSpec], steerers: Mapping[str, Steerer]
) -> list[tuple[Steerer, ResolvedSteering]]:
    """Each spec with its adapter's current version. Raises InvalidRequestError for an unknown adapter."""
    resolved = []
    for spec in specs:
        steerer = steerers.get(spec.adapter)
        if steerer is None:
            known = ", ".join(sorted(steerers)) or "none"
            raise InvalidRequestError(
                f"steering: there is no adapter {spec.adapter[:200]!r} (loaded: {known})", "steering"
            )
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

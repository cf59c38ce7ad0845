"""How an adapter steers a base: the hyperparameters that a sweep varies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mapping_cache import DEFAULT_MIN_SIMILARITY, Form, Method, VocabularyMap, load_or_build
from steering.adapters import Adapter
from steering.engine.engine import Engine
from steering.specs import SteeringSpec

Unmatched = Literal["neutral", "zero"]


@dataclass(frozen=True, slots=True)
class Setting:
    """All hyperparameters between an adapter and a base; None is the adapter's own value.

    `method`, `form` and `min_similarity` decide the vocabulary map. `unmatched` decides the shift of tokens without a
    match: "neutral" centres the shift and then fills with 0, "zero" fills with 0 and does not centre. `top_k` 0 shifts
    every token.
    """

    alpha: float | None = None
    bridge: str | None = None
    method: Method = "pm-mined"
    form: Form = "bytes"
    min_similarity: float = DEFAULT_MIN_SIMILARITY
    unmatched: Unmatched | None = None
    top_k: int | None = None


def filled(setting: Setting, adapter: Adapter) -> Setting:
    """The setting with the adapter's own values in place of None."""
    return replace(
        setting,
        alpha=adapter.alpha if setting.alpha is None else setting.alpha,
        bridge=setting.bridge or adapter.bridge,
        unmatched=setting.unmatched or ("neutral" if adapter.neutral else "zero"),
        top_k=adapter.top_k or 0 if setting.top_k is None else setting.top_k,
    )


def map_for(engine: Engine, adapter: Adapter, setting: Setting) -> VocabularyMap:
    """The vocabulary map of a setting, from the cache or newly built."""
    return load_or_build(
        engine.base.vocabulary,
        adapter.models[0].vocabulary,
        method=setting.method,
        form=setting.form,
        min_similarity=setting.min_similarity,
    )


def apply(
    engine: Engine,
    adapter: Adapter,
    setting: Setting,
    *,
    name: str = "",
    vocabulary_map: VocabularyMap | None = None,
) -> SteeringSpec:
    """Attach an adapter to the engine under a setting, and return the steering that requests then ask for.

    `name` replaces the adapter's own name, `vocabulary_map` the map of the setting.
    """
    whole = filled(setting, adapter)
    steering = replace(
        adapter,
        name=name or adapter.name,
        neutral=whole.unmatched == "neutral",
        # Set here, because a request cannot remove the limit of an adapter that has one.
        top_k=whole.top_k or None,
    )
    used = vocabulary_map if vocabulary_map is not None else map_for(engine, adapter, setting)
    engine.session.install(engine.session.prepare(steering, vocabulary_map=used))
    return SteeringSpec(steering.name, alpha=whole.alpha, bridge=whole.bridge)

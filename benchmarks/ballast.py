"""A small model that takes the time of a large one: each of its passes also runs the large one's.

The work of rescoring depends on the text, and only a trained model writes text. Its cost depends on the models' size,
and there is no trained model of a real size here. So a trained tiny model decides, and a random model of a real shape
runs beside it, on the same packed rows and with its own pages.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from steering.model.attention import AttentionPlan
from steering.model.forward import Forward
from steering.model.kv_cache import KVCache
from steering.model.loaded_model import LoadedModel


class Ballast:
    """The forward pass of `model`. A pass of `weight` comes before it, and its result is thrown away."""

    def __init__(self, model: Forward, weight: Forward) -> None:
        self._model = model
        self._weight = weight
        # One for each of the model's pools, because engines do not share pages.
        self._caches: dict[int, KVCache] = {}

    def __call__(self, tokens: Tensor, positions: Tensor, wanted: Tensor, plan: AttentionPlan) -> Tensor:
        """Run both, and return the logits of `model`."""
        cache = self._caches.setdefault(id(plan.cache), KVCache(plan.cache.allocator))
        self._weight(tokens, positions, wanted, replace(plan, cache=cache))
        return self._model(tokens, positions, wanted, plan)


def with_ballast(model: LoadedModel, weight: LoadedModel) -> LoadedModel:
    """`model` with the cost of `weight` added to its passes. Its token ids must be valid in both."""
    return replace(model, forward=Ballast(model.forward, weight.forward))

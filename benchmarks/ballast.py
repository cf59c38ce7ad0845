"""A small model that costs what a large one does: its texts are its own, its steps also carry the large one's pass.

What rescoring does in a step depends on the text, and only a trained model writes any; what it costs depends on the
models' size, and no trained model of a real size is at hand. So a trained tiny model decides, and a random one of a
real shape is run beside it on the same packed rows over pages of its own.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from steering.model.attention import AttentionPlan
from steering.model.forward import Forward
from steering.model.kv_cache import KVCache
from steering.model.loaded_model import LoadedModel


class Ballast:
    """The forward pass of `model`, after one of `weight` whose result is thrown away."""

    def __init__(self, model: Forward, weight: Forward) -> None:
        self._model = model
        self._weight = weight
        # A pool a pool: engines of one model don't share pages.
        self._caches: dict[int, KVCache] = {}

    def __call__(self, tokens: Tensor, positions: Tensor, wanted: Tensor, plan: AttentionPlan) -> Tensor:
        """See `Forward`."""
        cache = self._caches.setdefault(id(plan.cache), KVCache(plan.cache.allocator))
        self._weight(tokens, positions, wanted, replace(plan, cache=cache))
        return self._model(tokens, positions, wanted, plan)


def with_ballast(model: LoadedModel, weight: LoadedModel) -> LoadedModel:
    """`model` as it is, with the cost of `weight` added to its passes; token ids must be valid in both."""
    return replace(model, forward=Ballast(model.forward, weight.forward))

"""The bridge `map` with a weight for each match: a bridge that an experiment registers for its own run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from examples.map_policies import Policy
from mapping_cache import VocabularyMap
from steering.adapters.shift import Shift
from steering.bridges.map import mean_shift
from steering.bridges.shared import steering_shift
from steering.crossing.map_tensors import pick
from steering.steerers.state import SteererState
from steering.steerers.steerer import Steerer


@dataclass(frozen=True, slots=True, eq=False)
class WeightedMap:
    """Carries to each matched base token a share of its counterpart's shift.

    columns: int64 `[M]`, the base tokens that get a shift, ascending. counterparts: int64 `[M]`, their steering tokens.
    weights: float32 `[M]` in 0..1, the shares.
    """

    columns: Tensor
    counterparts: Tensor
    weights: Tensor

    @classmethod
    def of(cls, policy: Policy, vocabulary_map: VocabularyMap) -> WeightedMap:
        """The matches that a policy admits, on the CPU."""
        columns = policy.admitted(vocabulary_map).nonzero()[0]
        return cls(
            torch.from_numpy(columns),
            torch.from_numpy(vocabulary_map.ids[columns].astype("int64")),
            torch.from_numpy(policy.weighting(vocabulary_map.similarity[columns])),
        )

    def __call__(
        self,
        steerer: Steerer,
        states: Sequence[SteererState],
        logits: Sequence[Tensor],
        base: Tensor,
        alphas: Tensor,
    ) -> Shift:
        """Each counterpart's shift, centred if the adapter says so, times the weight of the match.

        The mean that centring takes off is under the matched probability times the weights, so that any offset of the
        shift cancels, as it does in `map`.
        """
        values = pick(steering_shift(steerer, states, logits), self.counterparts)
        if steerer.adapter.neutral:
            likely = pick(base, self.columns) + self.weights.log()
            values = values - mean_shift(values, likely)[:, None]
        return Shift(values * self.weights, self.columns)

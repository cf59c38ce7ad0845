"""The oracle: a base's steered distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tests.oracle.bridged import Pair, mapped_shift
from tests.oracle.models import NaiveAdapter, NaiveModel
from tests.oracle.rescored import rescored_shift


class Oracle:
    """One base and the adapters that steer it."""

    def __init__(self, base: NaiveModel, *adapters: NaiveAdapter) -> None:
        self.base = base
        self.adapters = adapters
        self.maps = [adapter.map_from(base) for adapter in adapters]

    def base_logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        """`[V_base]`: the unsteered log probabilities of the token after `ids`."""
        return self.base.logprobs(ids)

    def shift(self, ids: Sequence[int]) -> torch.Tensor:
        """`[V_base]`: the sum of alpha times each adapter's bridged shift."""
        total = torch.zeros(self.base.size)
        for adapter, mapped in zip(self.adapters, self.maps, strict=True):
            if adapter.alpha == 0:
                continue
            rescore = adapter.bridge == "rescore" and not mapped.is_identity
            bridge = rescored_shift if rescore else mapped_shift
            bridged = bridge(Pair(self.base, adapter, mapped), ids)
            if adapter.top_k is not None:
                keep = torch.zeros(self.base.size, dtype=torch.bool)
                keep[self.base_logprobs(ids).topk(adapter.top_k).indices] = True
                bridged = torch.where(keep, bridged, 0.0)
            total += adapter.alpha * bridged
        return total

    def logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        """`[V_base]`: the steered log probabilities of the token after `ids`."""
        return (self.base_logprobs(ids) + self.shift(ids)).log_softmax(-1)

    def greedy(self, ids: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        """`count` greedy tokens after `ids` and their steered log probabilities."""
        text, values = list(ids), []
        for _ in range(count):
            row = self.logprobs(text)
            text.append(int(row.argmax()))
            values.append(float(row.max()))
        return text[len(ids) :], values

    def scored(self, ids: Sequence[int]) -> list[float]:
        """Steered log probabilities of `ids[1:]`, each given the tokens before it."""
        return [float(self.logprobs(ids[:end])[ids[end]]) for end in range(1, len(ids))]

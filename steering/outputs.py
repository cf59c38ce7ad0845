"""From a step's distributions to what it tells the world: tokens, log probabilities, and what steering changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.distribution import Distributions
from steering.fusion import best, divergence
from steering.transfer import on_device
from steering.types import StepOutput, TokenLogprob


class Drawn:
    """What a step found at the ends of its sequences, on its way to the host.

    All of it is one small tensor, which is asked for once the device has been given its next work.
    """

    def __init__(
        self, ends: Distributions, tokens: Tensor, steered: Sequence[int], measured: Sequence[int]
    ) -> None:
        """tokens: int64 `[rows]`, as drawn. steered: the rows that an adapter has part in, and so can differ from the
        base; measured: those of them whose divergence is wanted."""
        self._ends = ends
        self._steered = list(steered)
        self._measured = list(measured)
        found = [tokens, torch.isfinite(ends.steered.amax(-1))]
        if steered:
            theirs = ends.select(self._steered)
            found.append(best(theirs.steered) != best(theirs.base))
        if measured:
            theirs = ends.select(self._measured)
            found.append(divergence(theirs.steered, theirs.base))
        # float64 holds a token's number and a float32 exactly.
        self._found = torch.cat([part.double() for part in found])

    def read(self, logprobs: Mapping[int, int]) -> OutputBuilder:
        """Wait for the device. logprobs: the rows whose log probabilities are wanted, and of how many tokens beside."""
        found = iter(self._found.tolist())
        rows = range(self._ends.base.shape[0])
        tokens = [int(next(found)) for _ in rows]
        asked = [(row, tokens[row], count) for row, count in logprobs.items()]
        return OutputBuilder(
            tokens=tokens,
            finite=[bool(next(found)) for _ in rows],
            changed={row for row in self._steered if next(found)},
            divergence={row: next(found) for row in self._measured},
            logprobs=dict(zip(logprobs, token_logprobs(self._ends, asked), strict=True)),
        )


@dataclass(frozen=True, slots=True)
class OutputBuilder:
    """Builds the outputs of one step.

    `finite`: False where a row's distribution is broken (NaN, or no likeliest token). `changed`: the steered rows whose
    likeliest token is not the base's. `divergence`: KL(steered || base) of the rows where it was measured.
    `logprobs`: of the rows that asked for them.
    """

    tokens: list[int]
    finite: list[bool]
    changed: set[int]
    divergence: dict[int, float]
    logprobs: dict[int, TokenLogprob]

    def output(
        self, row: int, request_id: str, prompt_logprobs: tuple[TokenLogprob | None, ...] | None
    ) -> StepOutput:
        """The output of a row that goes on; its end is for the caller to judge."""
        return StepOutput(
            request_id=request_id,
            token_ids=(self.tokens[row],),
            logprobs=(self.logprobs[row],) if row in self.logprobs else (),
            prompt_logprobs=prompt_logprobs,
            changed=int(row in self.changed),
            kl=self.divergence.get(row),
        )


def token_logprobs(distributions: Distributions, asked: Sequence[tuple[int, int, int]]) -> list[TokenLogprob]:
    """Log probabilities of tokens, each by its row, its id and how many of the best ones are wanted beside it."""
    if not asked:
        return []
    rows, tokens, counts = zip(*asked, strict=True)
    theirs = distributions.select(list(rows))
    token = on_device(tokens, theirs.base.device)[:, None]
    steered = theirs.steered.log_softmax(-1)
    before = steered if theirs.steered is theirs.base else theirs.base.log_softmax(-1)
    own = steered.gather(1, token)
    rank = (steered > own).sum(-1, keepdim=True) + 1
    shift = theirs.steered.gather(1, token) - theirs.base.gather(1, token)
    figures = torch.cat([own, before.gather(1, token), shift, rank], dim=1).tolist()
    best_values, best_ids = steered.topk(min(max(counts), steered.shape[1]))
    best_lists = zip(best_ids.tolist(), best_values.tolist(), strict=True)
    return [
        TokenLogprob(
            token_id=token_id,
            logprob=own_value,
            rank=int(place),
            base_logprob=base_value,
            shift=moved,
            top=tuple(zip(ids[:count], values[:count], strict=True)),
        )
        for token_id, count, (own_value, base_value, moved, place), (ids, values) in zip(
            tokens, counts, figures, best_lists, strict=True
        )
    ]

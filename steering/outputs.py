"""From a step's distributions to what it tells the world: tokens, log probabilities, and what steering changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from steering.distribution import Distributions
from steering.fusion import best, divergence
from steering.sequence import Sequence as RunningSequence
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

    def read(self) -> OutputBuilder:
        """Wait for the device."""
        found = iter(self._found.tolist())
        rows = range(self._ends.base.shape[0])
        return OutputBuilder(
            self._ends,
            tokens=[int(next(found)) for _ in rows],
            finite=[bool(next(found)) for _ in rows],
            changed={row for row in self._steered if next(found)},
            divergence={row: next(found) for row in self._measured},
        )


@dataclass(frozen=True, slots=True)
class OutputBuilder:
    """Builds the outputs of one step.

    `finite`: False where a row's distribution is broken (NaN, or no likeliest token). `changed`: the steered rows whose
    likeliest token is not the base's. `divergence`: KL(steered || base) of the rows where it was measured.
    """

    distributions: Distributions
    tokens: list[int] = field(default_factory=list)
    finite: list[bool] = field(default_factory=list)
    changed: set[int] = field(default_factory=set)
    divergence: dict[int, float] = field(default_factory=dict)

    def output(
        self,
        row: int,
        sequence: RunningSequence,
        prompt_logprobs: tuple[TokenLogprob | None, ...] | None,
    ) -> StepOutput:
        """The output of a row that goes on; its end is for the caller to judge."""
        token = self.tokens[row]
        count = sequence.request.sampling.logprobs
        return StepOutput(
            request_id=sequence.request.request_id,
            token_ids=(token,),
            logprobs=() if count is None else (self.token_logprob(row, token, count),),
            prompt_logprobs=prompt_logprobs,
            changed=int(row in self.changed),
            kl=self.divergence.get(row),
        )

    def token_logprob(self, row: int, token: int, count: int) -> TokenLogprob:
        """One token's log probabilities and the `count` best ones beside it."""
        scores, base = self.distributions.steered[row], self.distributions.base[row]
        steered = scores.log_softmax(-1)
        before = steered if self.distributions.steered is self.distributions.base else base.log_softmax(-1)
        own = float(steered[token])
        top: tuple[tuple[int, float], ...] = ()
        if count:
            values, ids = steered.topk(min(count, steered.shape[0]))
            top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        return TokenLogprob(
            token_id=token,
            logprob=own,
            rank=int((steered > own).sum()) + 1,
            base_logprob=float(before[token]),
            shift=float(scores[token] - base[token]),
            top=top,
        )

"""From a step's distributions to what it tells the world: log probabilities, and what steering changed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from steering.distribution import Distributions
from steering.fusion import best, divergence
from steering.sequence import Sequence as RunningSequence
from steering.types import StepOutput, TokenLogprob


class OutputBuilder:
    """Builds the outputs of one step; what several rows need is computed once for all.

    `steered`: the rows that an adapter has part in, and so can differ from the base; `measured`: those of them whose
    divergence is wanted.
    """

    def __init__(
        self, distributions: Distributions, steered: Sequence[int] = (), measured: Sequence[int] = ()
    ) -> None:
        self._distributions = distributions
        self._steered = list(steered)
        self._measured = list(measured)

    def is_finite(self, row: int) -> bool:
        """False when a row's distribution is broken (NaN, or no likeliest token)."""
        return self._finite[row]

    def output(
        self,
        row: int,
        sequence: RunningSequence,
        token: int,
        prompt_logprobs: tuple[TokenLogprob | None, ...] | None,
    ) -> StepOutput:
        """The output of a row that drew `token`; its end is for the caller to judge."""
        count = sequence.request.sampling.logprobs
        return StepOutput(
            request_id=sequence.request.request_id,
            token_ids=(token,),
            logprobs=() if count is None else (self.token_logprob(row, token, count),),
            prompt_logprobs=prompt_logprobs,
            changed=int(row in self._changed),
            kl=self._divergence.get(row),
        )

    def token_logprob(self, row: int, token: int, count: int) -> TokenLogprob:
        """One token's log probabilities and the `count` best ones beside it."""
        scores, base = self._distributions.steered[row], self._distributions.base[row]
        steered = scores.log_softmax(-1)
        before = steered if self._distributions.steered is self._distributions.base else base.log_softmax(-1)
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

    @cached_property
    def _finite(self) -> list[bool]:
        finite: list[bool] = torch.isfinite(self._distributions.steered.amax(-1)).tolist()
        return finite

    @cached_property
    def _changed(self) -> set[int]:
        """The steered rows whose likeliest token is not the base's."""
        if not self._steered:
            return set()
        theirs = self._distributions.select(self._steered)
        moved = (best(theirs.steered) != best(theirs.base)).tolist()
        return {row for row, differs in zip(self._steered, moved, strict=True) if differs}

    @cached_property
    def _divergence(self) -> dict[int, float]:
        if not self._measured:
            return {}
        theirs = self._distributions.select(self._measured)
        found = divergence(theirs.steered, theirs.base).tolist()
        return dict(zip(self._measured, found, strict=True))

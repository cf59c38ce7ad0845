"""From a step's distributions to what it tells the world: log probabilities, and what steering changed."""

from __future__ import annotations

from functools import cached_property

import torch

from steering.distribution import Distributions
from steering.fusion import divergence
from steering.sequence import Sequence
from steering.types import StepOutput, TokenLogprob


class OutputBuilder:
    """Builds the outputs of one step; what several rows need is computed once for all.

    `steered`: the rows that an adapter has part in; only they can differ from the base.
    """

    def __init__(self, distributions: Distributions, steered: list[int]) -> None:
        self._distributions = distributions
        self._steered = steered

    def is_finite(self, row: int) -> bool:
        """False when a row's distribution is broken (NaN, or no likeliest token)."""
        return self._finite[row]

    def output(
        self,
        row: int,
        sequence: Sequence,
        token: int,
        prompt_logprobs: tuple[TokenLogprob | None, ...] | None,
    ) -> StepOutput:
        """The output of a row that drew `token`; its end is for the caller to judge."""
        count = sequence.request.sampling.logprobs
        kl, changed = self._divergence.get(row, (0.0, False))
        return StepOutput(
            request_id=sequence.request.request_id,
            token_ids=(token,),
            logprobs=() if count is None else (self.token_logprob(row, token, count),),
            prompt_logprobs=prompt_logprobs,
            changed=int(changed),
            kl=kl,
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
        best: list[bool] = torch.isfinite(self._distributions.steered.amax(-1)).tolist()
        return best

    @cached_property
    def _divergence(self) -> dict[int, tuple[float, bool]]:
        if not self._steered:
            return {}
        theirs = self._distributions.select(self._steered)
        kl, changed = divergence(theirs.steered, theirs.base, theirs.columns)
        return dict(zip(self._steered, zip(kl.tolist(), changed.tolist(), strict=True), strict=True))

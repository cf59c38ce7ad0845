"""From a step's distributions to what it tells the world: tokens, log probabilities, and what steering changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.device.largest import largest
from steering.device.transfer import OnHost, on_device
from steering.session.distribution import Distributions
from steering.session.fusion import best, divergence
from steering.types import StepOutput, TokenLogprob


class Drawn:
    """What a step found at the ends of its sequences, on its way to the host.

    All of it is one small tensor, which sets out at once and is read when the device has been given its next work.
    """

    def __init__(
        self,
        ends: Distributions,
        tokens: Tensor,
        *,
        steered: Sequence[int],
        measured: Sequence[int],
        logprobs: Mapping[int, int],
    ) -> None:
        """tokens: int64 `[rows]`, as drawn. Of the rows, `steered`: those that an adapter has part in, and so can
        differ from the base; `measured`: those of them whose divergence is wanted; `logprobs`: those whose log
        probabilities are, and of how many tokens beside."""
        self._steered, self._measured, self._logprobs = list(steered), list(measured), dict(logprobs)
        self._rows = len(tokens)
        found = [tokens, torch.isfinite(ends.steered.amax(-1))]
        if steered:
            theirs = ends.select(self._steered)
            found.append(best(theirs.steered) != best(theirs.base))
        if measured:
            theirs = ends.select(self._measured)
            found.append(divergence(theirs.steered, theirs.base))
        self._table_width = 0
        if logprobs:
            rows = list(self._logprobs)
            drawn = tokens.index_select(0, on_device(rows, tokens.device))
            table = _logprob_table(ends.select(rows), drawn, max(self._logprobs.values()))
            self._table_width = table.shape[1]
            found.append(table.flatten())
        # float64 holds a token's number and a float32 exactly.
        self._found = OnHost(torch.cat([part.double() for part in found]))

    def read(self) -> OutputBuilder:
        """Wait for the device."""
        found = iter(self._found.read())
        tokens = [int(next(found)) for _ in range(self._rows)]
        return OutputBuilder(
            tokens=tokens,
            finite=[bool(next(found)) for _ in range(self._rows)],
            changed={row for row in self._steered if next(found)},
            divergence={row: next(found) for row in self._measured},
            logprobs={
                row: _logprob(tokens[row], count, [next(found) for _ in range(self._table_width)])
                for row, count in self._logprobs.items()
            },
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
    """Log probabilities of tokens, each by its row, its id and how many of the best ones are wanted beside it.

    Rows ascend, and none comes twice.
    """
    if not asked:
        return []
    rows, tokens, counts = zip(*asked, strict=True)
    theirs = distributions.select(list(rows))
    table = _logprob_table(theirs, on_device(tokens, theirs.base.device), max(counts)).tolist()
    return [_logprob(token, count, line) for token, count, line in zip(tokens, counts, table, strict=True)]


def _logprob_table(distributions: Distributions, tokens: Tensor, most: int) -> Tensor:
    """A line a row, float64 `[rows, 4 + 2 * most]`: of its token of int64 `[rows]` the log probability, the base's, the
    shift and the rank; then the best tokens' ids and log probabilities."""
    token = tokens[:, None]
    steered = distributions.steered.log_softmax(-1)
    before = steered
    if distributions.steered is not distributions.base:
        before = distributions.base.log_softmax(-1)
    own = steered.gather(1, token)
    shift = distributions.steered.gather(1, token) - distributions.base.gather(1, token)
    rank = (steered > own).sum(-1, keepdim=True) + 1
    values, ids = largest(steered, min(most, steered.shape[1]))
    # float64 holds an id and a float32 exactly.
    return torch.cat(
        [part.double() for part in (own, before.gather(1, token), shift, rank, ids, values)], dim=1
    )


def _logprob(token: int, count: int, line: Sequence[float]) -> TokenLogprob:
    """What a line of the table says, with `count` of its best tokens."""
    own, before, shift, rank, *best_ones = line
    half = len(best_ones) // 2
    ids, values = best_ones[:half], best_ones[half:]
    return TokenLogprob(
        token_id=token,
        logprob=own,
        rank=int(rank),
        base_logprob=before,
        shift=shift,
        top=tuple((int(one), value) for one, value in zip(ids[:count], values[:count], strict=True)),
    )

"""Log probabilities of single tokens: steered, the base's, and the shift between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.device.largest import largest
from steering.device.transfer import on_device
from steering.session.distributions import Distributions


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's log probabilities at one position.

    `logprob` is steered, `base_logprob` the base's; `shift` lies between them before renormalising. `top`: (token id,
    steered logprob), best first. `rank` 1 is the likeliest token.
    """

    token_id: int
    logprob: float
    rank: int
    base_logprob: float
    shift: float
    top: tuple[tuple[int, float], ...] = ()


def token_logprobs(distributions: Distributions, asked: Sequence[tuple[int, int, int]]) -> list[TokenLogprob]:
    """Details of some tokens, each given by its row, its id and how many of the best tokens to list beside it.

    Rows ascend, and no row comes twice.
    """
    if not asked:
        return []
    rows, tokens, counts = zip(*asked, strict=True)
    some = distributions.select(rows)
    table = logprob_table(some, on_device(tokens, some.base.device), max(counts)).tolist()
    return [from_table(token, count, line) for token, count, line in zip(tokens, counts, table, strict=True)]


def logprob_table(distributions: Distributions, tokens: Tensor, most: int) -> Tensor:
    """The details of one token a row, float64 `[rows, 4 + 2 * most]`, for `from_table` to read. tokens: int64 `[rows]`.

    The columns are the log probability, the base's, the shift and the rank, then the ids and the log probabilities of
    the `most` best tokens.
    """
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


def from_table(token: int, count: int, line: Sequence[float]) -> TokenLogprob:
    """A line of the table as a TokenLogprob, with `count` of its best tokens."""
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

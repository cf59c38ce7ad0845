"""The bridge `rescore`: a base token gets what the steering model gives the text that it adds.

That text is one steering token or several, and by the chain rule its steered probability is a product of as many
factors. The first is at hand for every base token: the score of its spelling's first token. The others cost the
steering model a pass, which the likeliest candidates get: the text so far plus the candidate's text is encoded anew by
the steering tokenizer. Where the encoding of earlier text changes, the candidate's shift is the sum of the log ratios
along the new tokens less the same along the old ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.bridges.map import Bridged, pick
from steering.crossing.spelling import Spelling
from steering.device.largest import largest
from steering.device.transfer import on_device
from steering.steerers.steerer import Steerer, SteeringRow
from steering.steerers.trials import Trial, score_trials

# Best tokens by the base and their first factor, and by the base alone.
STEERED_CANDIDATES = 16
BASE_CANDIDATES = 4
# A token less likely than this, with its first factor and without, is not worth the steering model's time.
PLAUSIBLE = 1e-4
# Least weight of a candidate: the base may give it a probability that float32 rounds to nothing.
_TINY = 1e-30

_Beginning = tuple[int, tuple[int, ...]]
"""A row, and steering tokens that its text may go on with."""


@dataclass(frozen=True, slots=True)
class _Proposal:
    """A base token that is worth a trial, and the first steering token of its spelling.

    `weight`: its probability under the base; `stem`: that of the base token which is this steering token and no more.
    """

    token: int
    first: int
    weight: float
    stem: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One base token on trial in row `row`: `first` is scored by logits already at hand, `new` and `old` by trials.

    `weight` and `stem`: see `_Proposal`; `stem` is 0 where the text so far makes it begin otherwise than its spelling.
    """

    row: int
    token: int
    weight: float
    stem: float
    first: int | None
    new: Trial | None
    old: Trial | None

    @property
    def beginning(self) -> _Beginning:
        """Its own steering tokens; none where it splits earlier text anew."""
        if self.first is None:
            return self.row, ()
        return self.row, (self.first, *(self.new.targets if self.new is not None else ()))


def rescore(
    steerer: Steerer,
    rows: Sequence[SteeringRow],
    logits: Sequence[Tensor],
    base: Tensor,
    alphas: Tensor,
) -> Bridged:
    """The shift over the base's vocabulary: all factors of the candidates, the first one of all other tokens.

    logits: a model float32 `[rows, V_steering]` at each row's end; base: scores `[rows, V_base]`; alphas `[rows]`.
    An offset of the scores is part of every first factor. What has none gets their mean: tokens that nothing is known
    of, and the candidates that split earlier text anew, beside their sums of log ratios.
    """
    ratio = steerer.adapter.shifting.log_ratio(logits)
    values, likely = largest(base, min(STEERED_CANDIDATES, base.shape[1]))
    shift = pick(ratio, steerer.spelling.first)
    mean = _mean(steerer, shift, values, likely)
    shift[:, steerer.spelling.unknown] = mean[:, None]
    proposed = _propose(steerer.spelling, base, base.addcmul(shift, alphas[:, None]), likely)
    candidates = [
        candidate
        for number, proposals in enumerate(proposed)
        for proposal in proposals
        if (candidate := _candidate(number, rows[number], proposal)) is not None
    ]
    if not candidates:
        return Bridged(shift)
    trials = dict.fromkeys(t for c in candidates for t in (c.new, c.old) if t is not None)
    scores = score_trials(steerer, list(trials))
    where = on_device([(c.row, c.token, c.first or 0) for c in candidates], base.device)
    has_first = on_device([c.first is not None for c in candidates], base.device)
    rest = _beyond_first(candidates, scores, [row.spec.alpha for row in rows])
    row, token, first = where.unbind(1)
    factor = torch.where(has_first, ratio[row, first], mean[row])
    shift[row, token] = factor + on_device(rest, base.device, base.dtype)
    return Bridged(shift)


def _mean(steerer: Steerer, shift: Tensor, values: Tensor, likely: Tensor) -> Tensor:
    """The first factors' mean under the base, over its likeliest tokens `[rows, k]`; 0 for scores that have a zero."""
    if not steerer.adapter.neutral:
        return shift.new_zeros(len(shift))
    known = steerer.spelling.is_known[likely]
    weights = values.masked_fill(~known, -torch.inf).softmax(-1)
    return torch.where(known.any(-1), torch.linalg.vecdot(weights, shift.gather(1, likely)), 0.0)


def _beyond_first(
    candidates: Sequence[_Candidate], scores: dict[Trial, list[float]], alphas: Sequence[float]
) -> list[float]:
    """What each candidate's tokens after the first add to its shift.

    A factor is normalised over what the base could say there. The base says it in its own tokens: those of its
    candidates that begin with the same steering tokens stand for it. One that ends there says the rest another time,
    and has a log ratio of 0. It must be in the balance, or whatever begins like a token that is wanted would be wanted.
    """
    choices: dict[_Beginning, list[tuple[float, float]]] = {}
    for candidate in candidates:
        for beginning, ratio in _branches(candidate, scores):
            choices.setdefault(beginning, []).append((candidate.weight, ratio))
    ending: dict[_Beginning, list[float]] = {}
    for candidate in candidates:
        ending.setdefault(candidate.beginning, []).append(candidate.weight)
    for candidate in candidates:
        if candidate.first is not None and candidate.stem:
            # It counts where it is no candidate, too.
            ending.setdefault((candidate.row, (candidate.first,)), [candidate.stem])
    for beginning, found in choices.items():
        found += [(weight, 0.0) for weight in ending.get(beginning, ())]
    zeros = {beginning: _log_mean_exp(found, alphas[beginning[0]]) for beginning, found in choices.items()}
    return [
        sum(ratio - zeros[beginning] for beginning, ratio in _branches(c, scores))
        - zeros.get(c.beginning, 0.0)
        if c.first is not None
        else _total(c.new, scores) - _total(c.old, scores)
        for c in candidates
    ]


def _branches(candidate: _Candidate, scores: dict[Trial, list[float]]) -> list[tuple[_Beginning, float]]:
    """What stands before each of the candidate's tokens after the first, and that token's log ratio."""
    if candidate.first is None or candidate.new is None:
        return []
    row, tokens = candidate.beginning
    return [((row, tokens[:place]), ratio) for place, ratio in enumerate(scores[candidate.new], 1)]


def _total(trial: Trial | None, scores: dict[Trial, list[float]]) -> float:
    return 0.0 if trial is None else sum(scores[trial])


def _log_mean_exp(weighted: Sequence[tuple[float, float]], alpha: float) -> float:
    """`log(mean(exp(alpha * ratio))) / alpha` of (weight, ratio) pairs."""
    weights = [max(weight, _TINY) for weight, _ in weighted]
    powers = [alpha * ratio for _, ratio in weighted]
    top = max(powers)
    if not math.isfinite(top):
        return 0.0
    mean = sum(w * math.exp(power - top) for w, power in zip(weights, powers, strict=True)) / sum(weights)
    return (top + math.log(mean)) / alpha


def _propose(spelling: Spelling, base: Tensor, steered: Tensor, likely: Tensor) -> list[list[_Proposal]]:
    """What is worth a trial in each row, each token once, ascending. likely: the base's likeliest, `[rows, k]`."""
    before = base.softmax(-1)
    after, promising = largest(steered.softmax(-1), likely.shape[1])
    best = likely[:, :BASE_CANDIDATES]
    tokens = torch.cat([promising, best], dim=1)
    plausible = torch.cat([after, before.gather(1, best)], dim=1) >= PLAUSIBLE
    stems = spelling.stems[tokens]
    columns = (
        torch.where(plausible, tokens, -1),
        spelling.first[tokens],
        before.gather(1, tokens),
        torch.where(stems >= 0, before.gather(1, stems.clamp(min=0)), 0.0),
    )
    found = torch.stack([column.double() for column in columns], dim=-1).tolist()
    return [
        [
            _Proposal(int(token), int(first), *weights)
            for token, first, *weights in sorted(set(map(tuple, row)))
            if token >= 0
        ]
        for row in found
    ]


def _candidate(number: int, row: SteeringRow, proposal: _Proposal) -> _Candidate | None:
    """What must be computed to score one base token, or None where its first factor stands."""
    continuation = row.history.continuation(proposal.token)
    if continuation is None:
        return None
    tokens, suffix, common = row.history.tokens, tuple(continuation.suffix), continuation.common
    if row.length + len(suffix) > row.steerer.context_limit:
        return None
    if common == len(tokens):
        trial = Trial(row, row.length, suffix[:-1], suffix[1:]) if len(suffix) > 1 else None
        # A steering tokenizer that swallows the text adds no token, and so no opinion.
        first = suffix[0] if suffix else None
        stem = proposal.stem if first == proposal.first else 0.0
        return _Candidate(number, proposal.token, proposal.weight, stem, first, trial, None)
    # What comes first in a text is scored by nothing: 0 on both sides.
    known = max(common, 1)
    position = row.position_of(known - 1)
    if position is None:
        return None
    new_text = (*tokens[known - 1 : common], *suffix)
    old_text = tuple(tokens[known - 1 :])
    new = Trial(row, position, new_text[:-1], new_text[1:]) if len(new_text) > 1 else None
    old = Trial(row, position, old_text[:-1], old_text[1:]) if len(old_text) > 1 else None
    return _Candidate(number, proposal.token, proposal.weight, 0.0, None, new, old)

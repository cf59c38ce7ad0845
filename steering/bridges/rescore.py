"""The bridge `rescore`: a base token gets the steering model's score for the text that it adds.

A base token's text is one or more steering tokens. By the chain rule its steered probability is a product with one
factor for each of them. The first factor is known for every base token: the score of the first steering token. The
other factors cost the steering model a pass, so only the likeliest candidates get them. For each candidate the text so
far plus the candidate's text is encoded by the steering tokenizer. Where this changes the encoding of earlier text, the
candidate's shift is the sum of the log ratios along the new tokens minus the sum along the old ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.adapters.shift import Shift
from steering.crossing.first_tokens import FirstTokens
from steering.crossing.map_tensors import pick
from steering.device.largest import largest
from steering.device.transfer import on_device
from steering.steerers.state import SteererState
from steering.steerers.steerer import Steerer
from steering.steerers.trials import Trial, score_trials

# Candidates: the best tokens by base score plus first factor, and the best by the base alone.
STEERED_CANDIDATES = 16
BASE_CANDIDATES = 4
# A token less likely than this, both with and without its first factor, is no candidate.
PLAUSIBLE = 1e-4
# The least weight of a candidate. float32 may round its probability under the base to 0.
_TINY = 1e-30

_Beginning = tuple[int, tuple[int, ...]]
"""A row, and the first steering tokens of a continuation of its text."""


@dataclass(frozen=True, slots=True)
class _Proposal:
    """A base token to try, and the first steering token of its text.

    Both weights are probabilities under the base: `weight` is the token's, `stem` that of the token whose whole text is
    `first`.
    """

    token: int
    first: int
    weight: float
    stem: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A base token on trial in row `row`. Known logits score `first`; trials score `new` and `old`.

    `weight` and `stem` are those of its proposal. `stem` is 0 where the token's text begins with another steering token
    behind the text so far.
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
        """The token's row and steering tokens; no tokens where it changes the encoding of earlier text."""
        if self.first is None:
            return self.row, ()
        return self.row, (self.first, *(self.new.targets if self.new is not None else ()))


def rescore(
    steerer: Steerer,
    states: Sequence[SteererState],
    logits: Sequence[Tensor],
    base: Tensor,
    alphas: Tensor,
    *,
    plausible: float = PLAUSIBLE,
) -> Shift:
    """All factors for the candidates, the first factor for all other tokens (see `steering.bridges.bridge.Bridge`).

    An offset of the scores is part of every first factor. Tokens without a known first token get the mean of the first
    factors instead, and so do candidates that change the encoding of earlier text, beside their sums of log ratios.
    plausible: the least probability of a candidate.
    """
    first_tokens, rule = steerer.first_tokens, steerer.adapter.rule
    ratio = rule.log_ratio(logits)
    values, likely = largest(base, min(STEERED_CANDIDATES, base.shape[1]))
    shift = pick(ratio, first_tokens.first)
    mean = _mean(steerer, shift, values, likely)
    shift[:, first_tokens.unknown] = mean[:, None]
    proposed = _propose(
        first_tokens, base, rule.weigh(Shift(shift), base, alphas).added_to(base), likely, plausible
    )
    candidates = [
        candidate
        for number, proposals in enumerate(proposed)
        for proposal in proposals
        if (candidate := _candidate(number, states[number], proposal)) is not None
    ]
    if not candidates:
        return Shift(shift)
    trials = dict.fromkeys(t for c in candidates for t in (c.new, c.old) if t is not None)
    scores = score_trials(steerer, list(trials))
    where = on_device([(c.row, c.token, c.first or 0) for c in candidates], base.device)
    has_first = on_device([c.first is not None for c in candidates], base.device)
    rest = _beyond_first(candidates, scores, [state.spec.alpha for state in states])
    row, token, first = where.unbind(1)
    factor = torch.where(has_first, ratio[row, first], mean[row])
    shift[row, token] = factor + on_device(rest, base.device, base.dtype)
    return Shift(shift)


def _mean(steerer: Steerer, shift: Tensor, values: Tensor, likely: Tensor) -> Tensor:
    """The first factors' mean under the base, over its likeliest tokens `[rows, k]`; 0 for an uncentred adapter."""
    if not steerer.adapter.neutral:
        return shift.new_zeros(len(shift))
    known = steerer.first_tokens.is_known[likely]
    weights = values.masked_fill(~known, -torch.inf).softmax(-1)
    return torch.where(known.any(-1), torch.linalg.vecdot(weights, shift.gather(1, likely)), 0.0)


def _beyond_first(
    candidates: Sequence[_Candidate], scores: dict[Trial, list[float]], alphas: Sequence[float]
) -> list[float]:
    """The sum of each candidate's factors after the first.

    A factor is normalised over the base's alternatives: the candidates that begin with the same steering tokens. A
    candidate that ends there counts with a log ratio of 0, because the base would write the rest with its next token.
    Without it, a wanted token would raise every token that shares its first steering tokens.
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
            # The base token that ends after the first steering token counts even if it is no candidate.
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
    """For each of the candidate's tokens after the first: the tokens before it, and its log ratio."""
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


def _propose(
    first_tokens: FirstTokens, base: Tensor, steered: Tensor, likely: Tensor, least: float
) -> list[list[_Proposal]]:
    """The tokens to try in each row, each once, ascending. likely: the base's likeliest tokens, `[rows, k]`."""
    before = base.softmax(-1)
    after, promising = largest(steered.softmax(-1), likely.shape[1])
    best = likely[:, :BASE_CANDIDATES]
    tokens = torch.cat([promising, best], dim=1)
    plausible = torch.cat([after, before.gather(1, best)], dim=1) >= least
    stems = first_tokens.exact[tokens]
    columns = (
        torch.where(plausible, tokens, -1),
        first_tokens.first[tokens],
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


def _candidate(number: int, state: SteererState, proposal: _Proposal) -> _Candidate | None:
    """The trials that score one base token; None where it has no factor but the first."""
    window = state.window
    continuation = window.history.continuation(proposal.token)
    if continuation is None:
        return None
    tokens, suffix, common = window.history.tokens, tuple(continuation.suffix), continuation.common
    if window.length + len(suffix) > state.steerer.context_limit:
        return None
    if common == len(tokens):
        trial = Trial(state, window.length, suffix[:-1], suffix[1:]) if len(suffix) > 1 else None
        # A steering tokenizer that drops the text adds no token, and the steering model has no opinion.
        first = suffix[0] if suffix else None
        stem = proposal.stem if first == proposal.first else 0.0
        return _Candidate(number, proposal.token, proposal.weight, stem, first, trial, None)
    # Nothing scores the first token of a text: it counts 0 in both encodings.
    known = max(common, 1)
    position = window.position_of(known - 1)
    if position is None:
        return None
    new_text = (*tokens[known - 1 : common], *suffix)
    old_text = tuple(tokens[known - 1 :])
    new = Trial(state, position, new_text[:-1], new_text[1:]) if len(new_text) > 1 else None
    old = Trial(state, position, old_text[:-1], old_text[1:]) if len(old_text) > 1 else None
    return _Candidate(number, proposal.token, proposal.weight, 0.0, None, new, old)

"""The bridge `rescore`: the likeliest candidates are scored by the text that they add, not by one matched token.

For each candidate the text so far plus the candidate's text is encoded anew by the steering tokenizer. What its tokens
are given one after another adds up, as log probabilities do: the candidate's shift is the sum along its tokens. Where
the encoding of earlier text changes, it is the sum along the new tokens less the same along the old ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.bridge import Bridged, carry, mean_shift
from steering.fusion import add_shift
from steering.steerer import Steerer, SteeringRow
from steering.transfer import on_device
from steering.trials import Trial, score_trials

# Best tokens by base plus mapped shift, and by the base alone (an unmatched token may be the base's favourite).
STEERED_CANDIDATES = 16
BASE_CANDIDATES = 4
# A token less likely than this, with the mapped shift and without, is not worth the steering model's time.
PLAUSIBLE = 1e-4
# Least weight of a candidate: the base may give it a probability that float32 rounds to nothing.
_TINY = 1e-30


@dataclass(slots=True)
class _Candidate:
    """One base token on trial in row `row`: `first` is scored by logits already at hand, `new` and `old` by trials.

    `weight`: its probability under the base.
    """

    row: int
    token: int
    weight: float
    first: int | None
    new: Trial | None
    old: Trial | None


def rescore(
    steerer: Steerer,
    rows: Sequence[SteeringRow],
    logits: Sequence[Tensor],
    base: Tensor,
    alphas: Tensor,
) -> Bridged:
    """The shift over the base's vocabulary: rescored for the candidates, mapped for all other tokens.

    logits: a model float32 `[rows, V_steering]` at each row's end; base: scores `[rows, V_base]`; alphas `[rows]`.
    At the next token the shift is centred as in the bridge `map`: where an adapter is certain of one token, every other
    matched one is far below zero, and unmatched tokens, which get it, would win. At the tokens after it what counts is
    what the base could say otherwise there, see `_beyond_first`. A candidate that splits earlier text anew keeps the
    sums of its log ratios, whose natural zero makes few and many tokens comparable.
    """
    ratio = steerer.adapter.shifting.log_ratio(logits)
    mapped = carry(ratio, steerer.tensors)
    mean = mean_shift(mapped, base) if steerer.adapter.neutral else base.new_zeros(len(base))
    mapped = Bridged(mapped.values - mean[:, None], mapped.columns)
    steered = base.clone()
    add_shift(steered, base, mapped, alphas, [None] * len(rows))
    candidates = [
        candidate
        for number, proposed in enumerate(_propose(base, steered))
        for token, weight in proposed.items()
        if (candidate := _candidate(number, rows[number], token, weight)) is not None
    ]
    if not candidates:
        return mapped
    trials = dict.fromkeys(t for c in candidates for t in (c.new, c.old) if t is not None)
    scores = score_trials(steerer, list(trials))
    where = on_device([(c.row, c.token, c.first or 0) for c in candidates], base.device)
    has_first = on_device([c.first is not None for c in candidates], base.device)
    sums = _beyond_first(candidates, scores, [row.spec.alpha for row in rows])
    extra = on_device(sums, base.device, base.dtype)
    row, token, first = where.unbind(1)
    values = extra + torch.where(has_first, ratio[row, first] - mean[row], 0.0)
    already = (steered[row, token] - base[row, token]) / alphas[row]
    return Bridged(mapped.values, mapped.columns, (row, token, values - already))


def _beyond_first(
    candidates: Sequence[_Candidate], scores: dict[Trial, list[float]], alphas: Sequence[float]
) -> list[float]:
    """What each candidate's tokens after the first add to its shift.

    By the chain rule the steered probability of a text is a product over its steering tokens, in each factor of which
    the shift is normalised over what the base could say there. The base says it in its own tokens: those of its
    candidates that go through the same steering tokens so far stand for it. Where they all go on alike, nothing is
    added: a steering model that is certain of what is certain anyway would otherwise prefer whatever takes more tokens.
    """
    branches: dict[tuple[int, tuple[int, ...]], list[tuple[float, float]]] = {}
    for candidate in candidates:
        for beginning, ratio in _branches(candidate, scores):
            branches.setdefault((candidate.row, beginning), []).append((candidate.weight, ratio))
    zeros = {place: _log_mean_exp(found, alphas[place[0]]) for place, found in branches.items()}
    return [
        sum(ratio - zeros[c.row, beginning] for beginning, ratio in _branches(c, scores))
        if c.first is not None
        else _total(c.new, scores) - _total(c.old, scores)
        for c in candidates
    ]


def _branches(candidate: _Candidate, scores: dict[Trial, list[float]]) -> list[tuple[tuple[int, ...], float]]:
    """The steering tokens before each one after the candidate's first, and that one's log ratio."""
    if candidate.first is None or candidate.new is None:
        return []
    tokens = (candidate.first, *candidate.new.targets)
    return [(tokens[:place], ratio) for place, ratio in enumerate(scores[candidate.new], 1)]


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


def _propose(base: Tensor, steered: Tensor) -> list[dict[int, float]]:
    """Candidate token ids of each row, ascending, and their probabilities under the base."""
    before = base.softmax(-1)
    tokens = torch.cat(
        [_likeliest(steered.softmax(-1), STEERED_CANDIDATES), _likeliest(before, BASE_CANDIDATES)], dim=1
    )
    weights = before.gather(1, tokens.clamp(min=0))
    found = torch.stack([tokens.double(), weights.double()], dim=-1).tolist()
    return [dict(sorted((int(token), weight) for token, weight in row if token >= 0)) for row in found]


def _likeliest(probs: Tensor, count: int) -> Tensor:
    """The ids of each row's `count` likeliest tokens, -1 in place of those that are not plausible."""
    values, tokens = probs.topk(min(count, probs.shape[1]))
    return torch.where(values >= PLAUSIBLE, tokens, -1)


def _candidate(number: int, row: SteeringRow, token: int, weight: float) -> _Candidate | None:
    """What must be computed to score one base token, or None where its mapped score stands."""
    continuation = row.history.continuation(token)
    if continuation is None:
        return None
    tokens, suffix, common = row.history.tokens, tuple(continuation.suffix), continuation.common
    if row.length + len(suffix) > row.steerer.context_limit:
        return None
    if common == len(tokens):
        trial = Trial(row, row.length, suffix[:-1], suffix[1:]) if len(suffix) > 1 else None
        # A steering tokenizer that swallows the text adds no token, and so no opinion.
        return _Candidate(number, token, weight, suffix[0] if suffix else None, trial, None)
    # What comes first in a text is scored by nothing: 0 on both sides.
    known = max(common, 1)
    position = row.position_of(known - 1)
    if position is None:
        return None
    new_text = (*tokens[known - 1 : common], *suffix)
    old_text = tuple(tokens[known - 1 :])
    new = Trial(row, position, new_text[:-1], new_text[1:]) if len(new_text) > 1 else None
    old = Trial(row, position, old_text[:-1], old_text[1:]) if len(old_text) > 1 else None
    return _Candidate(number, token, weight, None, new, old)

"""The bridge `rescore`: the likeliest candidates are scored by the text that they add, not by one matched token.

For each candidate the text so far plus the candidate's text is encoded anew by the steering tokenizer. From the first
token that differs, the candidate's shift is the sum of the steering model's log ratios along the new tokens less the
same along the old ones: what the steering model thinks of the added text, however it splits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.bridge import Bridged, carry, mean_shift
from steering.fusion import add_shift
from steering.row_input import RowInput
from steering.runner import Runner
from steering.steerer import Steerer, SteeringRow
from steering.transfer import on_device

# Best tokens by base plus mapped shift, and by the base alone (an unmatched token may be the base's favourite).
STEERED_CANDIDATES = 16
BASE_CANDIDATES = 4
# A token less likely than this, with the mapped shift and without, is not worth the steering model's time.
PLAUSIBLE = 1e-4
# Rows of one forward pass over continuations; bounds the logits in memory.
_MAX_ROWS = 128


@dataclass(frozen=True, slots=True)
class _Trial:
    """Tokens to feed from position `start` of a row on, and the token whose score each position gives."""

    row: SteeringRow
    start: int
    feed: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(slots=True)
class _Candidate:
    """One base token on trial in row `row`: `first` is scored by logits already at hand, `new` and `old` by trials."""

    row: int
    token: int
    first: int | None
    new: _Trial | None
    old: _Trial | None


def rescore(
    steerer: Steerer,
    rows: Sequence[SteeringRow],
    logits: Sequence[Tensor],
    base: Tensor,
    alphas: Tensor,
) -> Bridged:
    """The shift over the base's vocabulary: rescored for the candidates, mapped for all other tokens.

    logits: a model float32 `[rows, V_steering]` at each row's end; base: scores `[rows, V_base]`; alphas `[rows]`.
    Log ratios have a natural zero, which makes sums over few and over many tokens comparable. At the next token they
    are centred all the same, as in the bridge `map`: where an adapter is certain of one token, every other matched one
    is far below that zero, and unmatched tokens, which have it, would win. A candidate that splits earlier text anew
    keeps its sums as they are.
    """
    ratio = steerer.adapter.shifting.log_ratio(logits)
    mapped = carry(ratio, steerer.tensors)
    mean = mean_shift(mapped, base) if steerer.adapter.neutral else base.new_zeros(len(base))
    mapped = Bridged(mapped.values - mean[:, None], mapped.columns)
    steered = base.clone()
    add_shift(steered, base, mapped, alphas, [None] * len(rows))
    candidates = [
        candidate
        for number, tokens in enumerate(_propose(base, steered))
        for token in tokens
        if (candidate := _candidate(number, rows[number], token)) is not None
    ]
    if not candidates:
        return mapped
    scores = score_trials(steerer, candidates)
    where = on_device([(c.row, c.token, c.first or 0) for c in candidates], base.device)
    has_first = on_device([c.first is not None for c in candidates], base.device)
    sums = [sum(scores[c.new]) - sum(scores[c.old]) for c in candidates]
    extra = on_device(sums, base.device, base.dtype)
    row, token, first = where.unbind(1)
    values = extra + torch.where(has_first, ratio[row, first] - mean[row], 0.0)
    already = (steered[row, token] - base[row, token]) / alphas[row]
    return Bridged(mapped.values, mapped.columns, (row, token, values - already))


def _propose(base: Tensor, steered: Tensor) -> list[list[int]]:
    """Candidate token ids of each row."""
    found = torch.cat([_likeliest(steered, STEERED_CANDIDATES), _likeliest(base, BASE_CANDIDATES)], dim=1)
    return [sorted({token for token in row if token >= 0}) for row in found.tolist()]


def _likeliest(scores: Tensor, count: int) -> Tensor:
    """The ids of each row's `count` likeliest tokens, -1 in place of those that are not plausible."""
    probs, tokens = scores.softmax(-1).topk(min(count, scores.shape[1]))
    return torch.where(probs >= PLAUSIBLE, tokens, -1)


def _candidate(number: int, row: SteeringRow, token: int) -> _Candidate | None:
    """What must be computed to score one base token, or None where its mapped score stands."""
    continuation = row.history.continuation(token)
    if continuation is None:
        return None
    tokens, suffix, common = row.history.tokens, tuple(continuation.suffix), continuation.common
    if row.length + len(suffix) > row.steerer.context_limit:
        return None
    if common == len(tokens):
        trial = _Trial(row, row.length, suffix[:-1], suffix[1:]) if len(suffix) > 1 else None
        # A steering tokenizer that swallows the text adds no token, and so no opinion.
        return _Candidate(number, token, suffix[0] if suffix else None, trial, None)
    # What comes first in a text is scored by nothing: 0 on both sides.
    known = max(common, 1)
    position = row.position_of(known - 1)
    if position is None:
        return None
    new_text = (*tokens[known - 1 : common], *suffix)
    old_text = tuple(tokens[known - 1 :])
    new = _Trial(row, position, new_text[:-1], new_text[1:]) if len(new_text) > 1 else None
    old = _Trial(row, position, old_text[:-1], old_text[1:]) if len(old_text) > 1 else None
    return _Candidate(number, token, None, new, old)


def score_trials(steerer: Steerer, candidates: Sequence[_Candidate]) -> dict[_Trial | None, list[float]]:
    """The log ratio of every target of every different trial."""
    trials = list({t: None for c in candidates for t in (c.new, c.old) if t is not None})
    scores: dict[_Trial | None, list[float]] = {None: []}
    values = iter(_ratios(steerer, trials))
    for trial in trials:
        scores[trial] = [next(values) for _ in trial.targets]
    return scores


def _ratios(steerer: Steerer, trials: Sequence[_Trial]) -> list[float]:
    """The log ratio of every target of the trials, one after another."""
    if not trials:
        return []
    found: list[Tensor] = []
    finite: list[Tensor] = []
    taken: list[tuple[Runner, list[int]]] = []
    try:
        for start in range(0, len(trials), _MAX_ROWS):
            batch = trials[start : start + _MAX_ROWS]
            logits = []
            for number, runner in enumerate(steerer.runners):
                pages: list[int] = []
                taken.append((runner, pages))
                logits.append(_try_out(runner, number, batch, pages))
                finite.append(torch.isfinite(logits[-1].amax()).float()[None])
            ratio = steerer.adapter.shifting.log_ratio(logits)
            targets = on_device([t for trial in batch for t in trial.targets], ratio.device)
            found.append(ratio.gather(1, targets[:, None]).squeeze(1))
        # Read in one piece: the host waits for the device each time.
        values: list[float] = torch.cat([*finite, *found]).tolist()
        for (runner, pages), is_finite in zip(taken, values, strict=False):
            if not is_finite:
                runner.cache.spoil(pages)
        return values[len(taken) :]
    finally:
        for runner, pages in taken:
            runner.cache.allocator.release(pages)


def _try_out(runner: Runner, number: int, trials: Sequence[_Trial], scratch: list[int]) -> Tensor:
    """Logits of every fed token, `[sum(len(feed)), V_steering]`. The rows' own keys and values stay untouched.

    Full pages before the continuation are read where they are; the page in which it starts is copied, since several
    continuations write to it. Pages taken are added to `scratch`, to be released.
    """
    allocator, cache = runner.cache.allocator, runner.cache
    size = allocator.page_size
    inputs: list[RowInput] = []
    sources: list[int] = []
    targets: list[int] = []
    for trial in trials:
        own = trial.row.caches[number].pages
        whole = trial.start // size
        fresh = allocator.allocate(allocator.pages_for(trial.start + len(trial.feed)) - whole)
        scratch.extend(fresh)
        if trial.start % size:
            sources.append(own[whole])
            targets.append(fresh[0])
        inputs.append(RowInput(trial.feed, trial.start, [*own[:whole], *fresh], 0))
    cache.make_room()
    if sources:
        cache.copy_pages(sources, targets)
    return runner.forward(inputs)

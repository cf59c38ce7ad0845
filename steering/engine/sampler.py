"""Draws the next token of every row at once, each by its own parameters. Pure functions over `[rows, V]`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.device.transfer import on_device
from steering.engine.request import SamplingParams
from steering.session.fusion import best

# The number of best tokens that are tried before a whole vocabulary is sorted.
_FEW = 512


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """One row's parameters, and the tokens that its penalties count.

    `uniform`: this step's number in [0, 1) from the request's own generator, so that a seed gives the same text in any
    batch. `forbidden`: token ids that must not be drawn now (end tokens before `min_tokens`, ends of bad sequences).
    """

    params: SamplingParams
    prompt: Sequence[int]
    generated: Sequence[int]
    uniform: float
    forbidden: Sequence[int] = ()


def sample(scores: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """The next token of each row, int64 `[rows]`, from float32 scores `[rows, V]` (log probabilities up to a constant).

    Rows that need the same work are done together. A batch that is all greedy is one argmax.
    """
    scores = adjust(scores, rows)
    ways: dict[Callable[[Tensor, Sequence[SamplingRow]], Tensor], list[int]] = {}
    for index, row in enumerate(rows):
        ways.setdefault(_way(row.params), []).append(index)
    if len(ways) == 1:
        return next(iter(ways))(scores, rows)
    drawn = torch.empty(len(rows), dtype=torch.long, device=scores.device)
    for way, members in ways.items():
        where = on_device(members, scores.device)
        drawn.index_copy_(0, where, way(scores.index_select(0, where), [rows[i] for i in members]))
    return drawn


def _way(params: SamplingParams) -> Callable[[Tensor, Sequence[SamplingRow]], Tensor]:
    if params.temperature == 0:
        return _greedy
    if params.top_k == 0 and params.top_p >= 1 and params.min_p == 0:
        return _draw_from_all
    return _draw_from_best


def _greedy(scores: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    return best(scores)


def adjust(scores: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Apply penalties, bias and forbidden tokens. Returns the input itself where no row has any."""
    wanting = [i for i, row in enumerate(rows) if _needs_adjusting(row)]
    if not wanting:
        return scores
    scores = scores.clone()
    for index in wanting:
        _adjust_row(scores[index], rows[index])
    return scores


def _needs_adjusting(row: SamplingRow) -> bool:
    return bool(
        row.params.penalises or row.params.logit_bias or row.forbidden or row.params.allowed_token_ids
    )


def _adjust_row(scores: Tensor, row: SamplingRow) -> None:
    params, device = row.params, scores.device
    if params.repetition_penalty != 1.0:
        # The penalty acts on logits, as in transformers and vLLM. A constant added to a row's scores would change it.
        seen = on_device(sorted({*row.prompt, *row.generated}), device, torch.long)
        values = scores[seen]
        scores[seen] = torch.where(
            values > 0, values / params.repetition_penalty, values * params.repetition_penalty
        )
    if row.generated and (params.presence_penalty or params.frequency_penalty):
        counts = Counter(row.generated)
        penalties = [params.presence_penalty + params.frequency_penalty * n for n in counts.values()]
        scores.index_add_(
            0, on_device(list(counts), device), on_device(penalties, device, scores.dtype), alpha=-1
        )
    if params.logit_bias:
        ids, biases = zip(*params.logit_bias, strict=True)
        scores.index_add_(0, on_device(ids, device), on_device(biases, device, scores.dtype))
    forbidden: Collection[int] = row.forbidden
    if params.allowed_token_ids:
        allowed = on_device(params.allowed_token_ids, device)
        kept = scores[allowed]
        scores.fill_(float("-inf")).index_copy_(0, allowed, kept)
        if set(params.allowed_token_ids) <= set(forbidden):
            # As where a grammar leaves only them: a token must be drawn.
            forbidden = ()
    if forbidden:
        scores.index_fill_(0, on_device(list(forbidden), device), float("-inf"))


def _draw_from_all(scores: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Draw by the inverse of the cumulative sum over all tokens. This needs no sorting."""
    return _invert(_tempered(scores, rows).softmax(-1), rows)


def _draw_from_best(scores: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Top-k, top-p and min-p on the sorted probabilities.

    Sorting a large vocabulary takes longer than the rest of the draw, and the best few nearly always hold every token
    that is kept. Other rows are sorted whole. Which rows these are depends on the row alone.
    """
    scores = _tempered(scores, rows)
    whole = scores.logsumexp(-1, keepdim=True)
    # A GPU sorts everything at once: asking it whether the best few are enough would make the host wait.
    few = min(_FEW, scores.shape[1]) if scores.device.type == "cpu" else scores.shape[1]
    complete = few == scores.shape[1]
    ordered, tokens = (
        scores.sort(dim=-1, descending=True, stable=True) if complete else scores.topk(few, dim=-1)
    )
    drawn, enough = _draw_sorted((ordered - whole).exp(), tokens, rows, complete=complete)
    if complete:
        return drawn
    for index in (~enough).nonzero().flatten().tolist():
        one = slice(index, index + 1)
        ordered, tokens = scores[one].sort(dim=-1, descending=True, stable=True)
        drawn[one], _ = _draw_sorted((ordered - whole[one]).exp(), tokens, rows[one], complete=True)
    return drawn


def _draw_sorted(
    probs: Tensor, tokens: Tensor, rows: Sequence[SamplingRow], *, complete: bool
) -> tuple[Tensor, Tensor]:
    """Draw from the likeliest tokens, `[rows, k]` in descending order.

    Also returns for which rows these hold every token that the parameters keep. Draws of the other rows are invalid.
    """
    device, width = probs.device, probs.shape[1]
    everything = torch.iinfo(torch.long).max
    top_k = on_device([row.params.top_k or everything for row in rows], device)[:, None]
    top_p = on_device([row.params.top_p for row in rows], device)[:, None]
    min_p = on_device([row.params.min_p for row in rows], device)[:, None]
    before = probs.cumsum(-1) - probs
    kept = (torch.arange(width, device=device) < top_k) & (probs >= min_p * probs[:, :1]) & (probs > 0)
    kept[:, 0] = True
    # Top-p is a share of what top-k and min-p keep, as in vLLM. The kept tokens are a run from the start.
    all_here = torch.full_like(kept[:, :1], complete) | ~kept[:, -1:] | (top_k <= width)
    share = torch.where(all_here, (probs * kept).sum(-1, keepdim=True), 1.0)
    is_known = all_here | ((top_k == everything) & (min_p == 0))
    # A top_p of 1 keeps all tokens. Rounding in the sum must not cut off the tail.
    kept &= (before < top_p * share) | (top_p >= 1)
    kept[:, 0] = True
    enough = (all_here | (is_known & ~kept[:, -1:])).squeeze(1)
    place = _invert(probs * kept, rows)
    return tokens.gather(1, place[:, None]).squeeze(1), enough


def _tempered(scores: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    temperatures = on_device([row.params.temperature for row in rows], scores.device)
    # Subtract the largest score first: dividing a large constant by a small temperature would lose precision.
    return (scores - scores.amax(-1, keepdim=True)) / temperatures[:, None]


def _invert(weights: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """The place where each row's uniform number falls in the cumulative sum of its weights `[rows, k]`."""
    # A GPU sums a row in pieces, and float32 rounding between them would make steps where weights are 0.
    exact = torch.float64 if weights.device.type == "cuda" else weights.dtype
    cumulative = weights.cumsum(-1, dtype=exact)
    total = cumulative[:, -1:].contiguous()
    uniform = on_device([row.uniform for row in rows], weights.device, exact)[:, None]
    place = torch.searchsorted(cumulative, uniform * total, right=True)
    # Rounding can bring the number up to the total, and every token after that place has weight 0.
    last = torch.searchsorted(cumulative, total)
    # A row of NaN must not disturb the others. Its sequence ends, so any token will do.
    return torch.minimum(place, last).squeeze(1).clamp_(max=weights.shape[1] - 1)

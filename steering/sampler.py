"""Drawing the next token of every row at once, each by its own parameters. Pure functions over `[rows, V]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.types import SamplingParams


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """One row's parameters and what they refer to.

    `uniform`: this step's number in [0, 1) from the request's own generator, so that a seed gives the same text in any
    batch. `forbidden`: token ids that must not come now (end tokens before `min_tokens`).
    """

    params: SamplingParams
    prompt: Sequence[int]
    generated: Sequence[int]
    uniform: float
    forbidden: Sequence[int] = ()


def sample(logprobs: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """The next token of each row, int64 `[rows]`, from float32 log probabilities `[rows, V]`."""
    scores = adjust(logprobs, rows)
    if all(row.params.temperature == 0 for row in rows):
        return scores.argmax(-1)
    device = scores.device
    greedy = torch.tensor([row.params.temperature == 0 for row in rows], device=device)
    temperatures = torch.tensor([row.params.temperature or 1.0 for row in rows], device=device)
    drawn = _draw(scores / temperatures[:, None], rows)
    return torch.where(greedy, scores.argmax(-1), drawn)


def adjust(logprobs: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Apply penalties, bias and forbidden tokens; returns the input itself where no row asks for any."""
    wanting = [i for i, row in enumerate(rows) if _needs_adjusting(row)]
    if not wanting:
        return logprobs
    scores = logprobs.clone()
    for index in wanting:
        _adjust_row(scores[index], rows[index])
    return scores


def _needs_adjusting(row: SamplingRow) -> bool:
    return bool(row.params.penalises or row.params.logit_bias or row.forbidden)


def _adjust_row(scores: Tensor, row: SamplingRow) -> None:
    params, device = row.params, scores.device
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*row.prompt, *row.generated}), device=device, dtype=torch.long)
        values = scores[seen]
        scores[seen] = torch.where(
            values > 0, values / params.repetition_penalty, values * params.repetition_penalty
        )
    if row.generated and (params.presence_penalty or params.frequency_penalty):
        tokens, counts = torch.tensor(list(row.generated), device=device).unique(return_counts=True)
        scores[tokens] -= params.presence_penalty + params.frequency_penalty * counts
    if params.logit_bias:
        ids, biases = zip(*params.logit_bias, strict=True)
        scores.index_add_(
            0, torch.tensor(ids, device=device), torch.tensor(biases, device=device, dtype=scores.dtype)
        )
    if row.forbidden:
        scores[torch.tensor(list(row.forbidden), device=device)] = float("-inf")


def _draw(scores: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Top-k, top-p and min-p on the sorted probabilities, then the inverse of their cumulative sum."""
    device = scores.device
    width = scores.shape[1]
    ordered, tokens = scores.sort(-1, descending=True)
    probs = ordered.softmax(-1)
    top_k = torch.tensor([row.params.top_k or width for row in rows], device=device)[:, None]
    top_p = torch.tensor([row.params.top_p for row in rows], device=device)[:, None]
    min_p = torch.tensor([row.params.min_p for row in rows], device=device)[:, None]
    uniform = torch.tensor([row.uniform for row in rows], device=device)[:, None]
    before = probs.cumsum(-1) - probs
    kept = (torch.arange(width, device=device) < top_k) & (probs >= min_p * probs[:, :1]) & (probs > 0)
    # A top_p of 1 keeps all: rounding in the sum must not cut the tail off.
    kept &= (before < top_p) | (top_p >= 1)
    kept[:, 0] = True
    cumulative = (probs * kept).cumsum(-1)
    target = uniform * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, target, right=True)
    last = kept.long().mul(torch.arange(width, device=device)).amax(-1, keepdim=True)
    return tokens.gather(1, torch.minimum(place, last)).squeeze(1)

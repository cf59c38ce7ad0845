"""What an adapter adds to the base's scores in one step: run its models, bridge the shift, scale it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.bridge import map_shift
from steering.fusion import scale_shift
from steering.rescore import rescore
from steering.runner import RowInput, Runner
from steering.steerer import Steerer, SteeringRow

# The longest piece of a history that is computed in one forward pass.
_MAX_CHUNK = 512


def scaled_shift(
    steerer: Steerer, rows: Sequence[SteeringRow], wanted: Sequence[int], base_logprobs: Tensor
) -> Tensor:
    """An adapter's bridged shift, times alpha, at the last `wanted` positions of each row.

    base_logprobs float32 `[sum(wanted), V_base]` -> the same shape. More than one position can only be wanted
    where the vocabulary is shared.
    """
    logits = [
        _logits(steerer.runners[number], number, rows, wanted) for number in range(len(steerer.runners))
    ]
    owners = [row for row, count in zip(rows, wanted, strict=True) for _ in range(count)]
    shift = torch.empty_like(base_logprobs)
    rescored = [not steerer.shares_vocabulary and row.spec.bridge == "rescore" for row in owners]
    alphas = torch.tensor([row.spec.alpha for row in owners], device=shift.device)
    for chosen in (True, False):
        picked = [i for i, flag in enumerate(rescored) if flag == chosen]
        if not picked:
            continue
        index = torch.tensor(picked, device=shift.device)
        theirs = [part[index] for part in logits]
        base = base_logprobs[index]
        if chosen:
            shift[index] = rescore(steerer, [owners[i] for i in picked], theirs, base, alphas[index])
        else:
            scores = steerer.adapter.shifting.shift(theirs)
            shift[index] = map_shift(scores, steerer.tensors, base, neutral=steerer.adapter.neutral)
    return scale_shift(shift, base_logprobs, alphas, [row.spec.top_k for row in owners])


def _logits(runner: Runner, number: int, rows: Sequence[SteeringRow], wanted: Sequence[int]) -> Tensor:
    """Logits of one model at each row's last `wanted` positions; zeros for an empty history (no opinion)."""
    allocator = runner.cache.allocator
    inputs: list[RowInput] = []
    empty: list[int] = []
    place = 0
    for row, count in zip(rows, wanted, strict=True):
        cache = row.caches[number]
        if row.length == 0:
            empty.append(place)
        else:
            start = min(cache.computed, row.length - count)
            missing = allocator.pages_for(row.length) - len(cache.pages)
            cache.pages.extend(allocator.allocate(max(missing, 0)))
            while row.length - count - start > _MAX_CHUNK:
                piece = row.seen(start, start + _MAX_CHUNK)
                runner.forward([RowInput(piece, start, cache.pages, _MAX_CHUNK)])
                start += _MAX_CHUNK
            tokens = row.seen(start)
            inputs.append(RowInput(tokens, start, cache.pages, len(tokens) - count))
            cache.computed = row.length
        place += count
    logits = torch.zeros(place, runner.loaded.vocab_size, device=runner.loaded.device)
    if inputs:
        filled = sorted(set(range(place)) - set(empty))
        logits[filled] = runner.forward(inputs)
    return logits

"""What an adapter has to say in one step: run its models on the rows' histories and bridge their shift."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.bridges.map import Bridged, map_shift
from steering.bridges.rescore import rescore
from steering.device.transfer import on_device
from steering.model.row_input import RowInput
from steering.model.runner import Runner
from steering.steerers.steerer import RowKV, Steerer, SteeringRow
from steering.types import BridgeName

# The longest piece of a history that is computed in one forward pass.
_MAX_CHUNK = 512


def model_logits(steerer: Steerer, rows: Sequence[SteeringRow], wanted: Sequence[int]) -> list[Tensor]:
    """Run an adapter's models: a model float32 `[sum(wanted), V_steering]` at the last `wanted` positions of each row.

    More than one position can only be wanted where the vocabulary is shared.
    """
    return [_logits(runner, number, rows, wanted) for number, runner in enumerate(steerer.runners)]


def bridged_shift(
    steerer: Steerer,
    bridge: BridgeName,
    rows: Sequence[SteeringRow],
    wanted: Sequence[int],
    logits: Sequence[Tensor],
    base: Tensor,
    alphas: Tensor,
) -> Bridged:
    """An adapter's bridged shift at the positions of its models' `logits` (see `model_logits`).

    base: the base's scores there, float32 `[sum(wanted), V_base]`; alphas `[sum(wanted)]`, by which a bridge judges
    what is worth its while.
    """
    if bridge == "rescore":
        return rescore(steerer, rows, logits, base, alphas)
    shift = steerer.adapter.shifting.shift(logits)
    silent = [row.length == 0 for row, count in zip(rows, wanted, strict=True) for _ in range(count)]
    if any(silent):
        shift = shift.masked_fill(on_device(silent, shift.device)[:, None], 0.0)
    return map_shift(shift, steerer.crossing.tensors, base, neutral=steerer.adapter.neutral)


def _logits(runner: Runner, number: int, rows: Sequence[SteeringRow], wanted: Sequence[int]) -> Tensor:
    """Logits of one model at each row's last `wanted` positions; zeros for an empty history (no opinion)."""
    inputs: list[RowInput] = []
    empty: list[int] = []
    place = 0
    for row, count in zip(rows, wanted, strict=True):
        if row.length:
            inputs.append(_row_input(runner, row, row.caches[number], count))
        else:
            empty.append(place)
        place += count
    if not inputs:
        return torch.zeros(place, runner.loaded.vocab_size, device=runner.loaded.device)
    found = runner.forward(inputs)
    for row in rows:
        cache = row.caches[number]
        # The last one is computed again where the next base token adds none, and what is remembered is never written.
        known = min(row.settled, row.length - 1)
        if known > cache.remembered:
            runner.cache.allocator.cache_prefix(row.history.tokens[:known], cache.pages, cache.remembered)
            cache.remembered = known
    if not empty:
        return found
    logits = torch.zeros(place, runner.loaded.vocab_size, device=runner.loaded.device)
    logits.index_copy_(0, on_device(sorted(set(range(place)) - set(empty)), logits.device), found)
    return logits


def read_all(runner: Runner, number: int, row: SteeringRow) -> None:
    """Compute one model's keys and values of a row's whole history."""
    _logits(runner, number, [row], [1])


def _row_input(runner: Runner, row: SteeringRow, cache: RowKV, count: int) -> RowInput:
    """The tokens of a row that one model has not read, its pages allocated; all but the last piece are read at once."""
    allocator = runner.cache.allocator
    if not cache.pages and count == 1 and not row.dropped:
        # Another row may have read the same beginning. Only what nothing can change is ever found there.
        cache.pages = allocator.find_prefix(row.history.tokens[: row.settled])
        cache.computed = cache.remembered = len(cache.pages) * allocator.page_size
    start = min(cache.computed, row.length - count)
    missing = allocator.pages_for(row.length) - len(cache.pages)
    cache.pages.extend(allocator.allocate(max(missing, 0)))
    while row.length - count - start > _MAX_CHUNK:
        runner.forward([RowInput(row.seen(start, start + _MAX_CHUNK), start, cache.pages, _MAX_CHUNK)])
        start += _MAX_CHUNK
    cache.computed = row.length
    tokens = row.seen(start)
    return RowInput(tokens, start, cache.pages, len(tokens) - count)

"""Runs a steering model over what it has not read of several histories."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.device.transfer import on_device
from steering.model.row_input import RowInput
from steering.model.runner import Runner
from steering.steerers.history_kv import HistoryKV
from steering.steerers.window import HistoryWindow


def read(runner: Runner, histories: Sequence[tuple[HistoryKV, HistoryWindow, int]]) -> Tensor:
    """One model's logits at the last `count` positions of each history (keys and values, window, count).

    Returns float32 `[sum(counts), V_steering]`; zeros, which are no opinion, for an empty history.
    """
    inputs: list[RowInput] = []
    spoken: list[int] = []
    places = 0
    for cache, window, count in histories:
        if window.length:
            inputs.append(cache.next_input(window, count))
            spoken.extend(range(places, places + count))
        places += count
    device = runner.loaded.device
    if not inputs:
        return torch.zeros(places, runner.loaded.vocab_size, device=device)
    found = runner.forward(inputs)
    for cache, window, _ in histories:
        cache.cache_settled(window)
    if len(spoken) == places:
        return found
    logits = torch.zeros(places, runner.loaded.vocab_size, device=device)
    logits.index_copy_(0, on_device(spoken, device), found)
    return logits

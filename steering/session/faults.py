"""Tells the faults that end one row from those that end everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from steering.model.pages import OutOfPagesError
from steering.session.row import SteeredRow

Item = TypeVar("Item")
Result = TypeVar("Result")

Faults = dict[SteeredRow, Exception]
"""The rows whose part of a step raised, each with its error."""


def is_shared(error: Exception) -> bool:
    """True for a fault of the device or of a pool, which every row depends on."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError | OutOfPagesError)


@contextmanager
def row_fault(row: SteeredRow, faults: Faults) -> Iterator[None]:
    """Note an error of the block as the row's fault. Raises a fault of the device or of a pool."""
    try:
        yield
    except Exception as error:
        if is_shared(error):
            raise
        faults[row] = error


def isolate(
    items: Sequence[Item], work: Callable[[Sequence[Item]], Result]
) -> tuple[list[Result], list[tuple[Item, Exception]]]:
    """Do `work` on all items at once; where that raises, on each item alone, to find the one at fault.

    Returns the results, and the items that raised with their errors. Raises a fault of the device or of a pool.
    """
    try:
        return [work(items)], []
    except Exception as error:
        if is_shared(error):
            raise
        if len(items) == 1:
            return [], [(items[0], error)]
    done: list[Result] = []
    failed: list[tuple[Item, Exception]] = []
    for item in items:
        results, errors = isolate([item], work)
        done += results
        failed += errors
    return done, failed

"""From encoded examples to padded batches."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from steering.examples import EncodedExample, Objective

# Sequences are sorted by length within this many batches, so that little of a batch is padding.
_POOL = 16


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded sequences: `ids`, `attention` and `response` are `[rows, length]` (int64, int64, bool).

    `response[i, t]` says that token t of row i is to be predicted. `objectives` has one entry a row.
    """

    ids: torch.Tensor
    attention: torch.Tensor
    response: torch.Tensor
    objectives: tuple[Objective, ...]

    def to(self, device: torch.device) -> Batch:
        """The same on `device`."""
        if self.ids.device == device:
            return self
        return Batch(
            self.ids.to(device), self.attention.to(device), self.response.to(device), self.objectives
        )


@dataclass(frozen=True, slots=True)
class StepTotals:
    """Rows and response tokens of each objective in a whole optimiser step, of which a batch may be a part.

    Losses are divided by these, so that a step is the same in however many parts it is computed.
    """

    rows: Mapping[Objective, int]
    tokens: Mapping[Objective, int]

    @classmethod
    def of(cls, rows: Sequence[EncodedExample]) -> StepTotals:
        """Count a step's rows."""
        tokens: Counter[Objective] = Counter()
        for row in rows:
            tokens[row.objective] += len(row.ids) - row.start
        return cls(Counter(row.objective for row in rows), tokens)

    def share(self, objective: Objective) -> float:
        """The part of the step's rows that have this objective."""
        return self.rows.get(objective, 0) / sum(self.rows.values())


def shuffled_groups(
    encoded: Sequence[EncodedExample], batch_size: int, rng: random.Random
) -> Iterator[list[EncodedExample]]:
    """The rows of one epoch's steps in random order, each of sequences of about the same length."""
    order = list(range(len(encoded)))
    rng.shuffle(order)
    pool = batch_size * _POOL
    groups = []
    for begin in range(0, len(order), pool):
        chunk = sorted(order[begin : begin + pool], key=lambda index: len(encoded[index].ids))
        groups += [chunk[at : at + batch_size] for at in range(0, len(chunk), batch_size)]
    rng.shuffle(groups)
    for group in groups:
        yield [encoded[index] for index in group]


def endless_groups(
    encoded: Sequence[EncodedExample], batch_size: int, seed: int
) -> Iterator[list[EncodedExample]]:
    """One epoch after another; the same seed gives the same order."""
    rng = random.Random(seed)
    while True:
        yield from shuffled_groups(encoded, batch_size, rng)


def collate(rows: Sequence[EncodedExample], pad_id: int) -> Batch:
    """One right-padded batch."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    attention = torch.zeros((len(rows), length), dtype=torch.int64)
    response = torch.zeros((len(rows), length), dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        attention[index, : len(row.ids)] = 1
        response[index, row.start : len(row.ids)] = True
    return Batch(ids, attention, response, tuple(row.objective for row in rows))

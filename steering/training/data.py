"""Encoded examples in groups of about the same length, and as padded batches."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from steering.examples import EncodedExample, Objective

# Sequences are sorted by length within pools of this many batches, which keeps padding small.
_POOL = 16


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded sequences: `ids`, `attention` and `response` are `[rows, length]` (int64, int64, bool).

    `response[i, t]` is true if token t of row i is a response token. `objectives` has one entry a row. `told` has the
    rows with the objective "imitate", in order, with the prompts that a base is told; None where there are none.
    """

    ids: torch.Tensor
    attention: torch.Tensor
    response: torch.Tensor
    objectives: tuple[Objective, ...]
    told: Batch | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        if self.ids.device == device:
            return self
        return Batch(
            self.ids.to(device),
            self.attention.to(device),
            self.response.to(device),
            self.objectives,
            self.told.to(device) if self.told else None,
        )


@dataclass(frozen=True, slots=True)
class StepTotals:
    """The rows and response tokens of each objective in a whole optimiser step, of which a batch may be a part.

    Losses are divided by these counts, so that the number of parts does not change the step.
    """

    rows: Mapping[Objective, int]
    tokens: Mapping[Objective, int]

    @classmethod
    def of(cls, rows: Sequence[EncodedExample]) -> StepTotals:
        """Count the rows and tokens of a step."""
        tokens: Counter[Objective] = Counter()
        for row in rows:
            tokens[row.objective] += len(row.ids) - row.start
        return cls(Counter(row.objective for row in rows), tokens)

    def share(self, objective: Objective) -> float:
        """The share of the step's rows with this objective, 0 to 1."""
        return self.rows.get(objective, 0) / sum(self.rows.values())


def shuffled_groups(
    encoded: Sequence[EncodedExample], batch_size: int, rng: random.Random
) -> Iterator[list[EncodedExample]]:
    """One epoch: groups of at most `batch_size` rows of about the same length, in random order.

    Each group has all objectives in about the shares of its pool. Refusals are short: sorted by length alone, steps
    that only forget and steps that only keep would alternate, and undo each other.
    """
    order = list(range(len(encoded)))
    rng.shuffle(order)
    pool = batch_size * _POOL
    groups = []
    for begin in range(0, len(order), pool):
        chunk = order[begin : begin + pool]
        count = -(-len(chunk) // batch_size)
        groups += _dealt([encoded[index] for index in chunk], count)
    rng.shuffle(groups)
    yield from groups


def _dealt(rows: Sequence[EncodedExample], count: int) -> list[list[EncodedExample]]:
    """The rows in `count` groups whose sizes differ by at most one, each with its share of every objective."""
    ranked: list[tuple[float, int, EncodedExample]] = []
    for objective in dict.fromkeys(row.objective for row in rows):
        own = sorted((row for row in rows if row.objective == objective), key=lambda row: len(row.ids))
        ranked += [((place + 0.5) / len(own), len(row.ids), row) for place, row in enumerate(own)]
    # Rows of the same rank in their own objective go together: the shortest with the shortest.
    ranked.sort(key=lambda each: each[:2])
    bounds = [len(ranked) * index // count for index in range(count + 1)]
    return [[row for _, _, row in ranked[low:high]] for low, high in itertools.pairwise(bounds)]


def endless_groups(
    encoded: Sequence[EncodedExample], batch_size: int, seed: int
) -> Iterator[list[EncodedExample]]:
    """The groups of one epoch after another, without end; the same seed gives the same order."""
    rng = random.Random(seed)
    while True:
        yield from shuffled_groups(encoded, batch_size, rng)


def collate(rows: Sequence[EncodedExample], pad_id: int) -> Batch:
    """A batch of these rows, padded on the right with `pad_id`."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    attention = torch.zeros((len(rows), length), dtype=torch.int64)
    response = torch.zeros((len(rows), length), dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        attention[index, : len(row.ids)] = 1
        response[index, row.start : len(row.ids)] = True
    told = [
        EncodedExample(row.told + row.ids[row.start :], len(row.told), row.objective)
        for row in rows
        if row.told
    ]
    return Batch(
        ids,
        attention,
        response,
        tuple(row.objective for row in rows),
        collate(told, pad_id) if told else None,
    )

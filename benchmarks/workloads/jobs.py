"""Requests with fixed lengths and random tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

SEED = 0
"""The seed of every benchmark: of weights, prompts, made-up languages and samples."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request: its prompt, and the number of tokens to generate."""

    prompt: tuple[int, ...]
    tokens: int


def mixed_jobs(count: int, vocabulary: int, seed: int = SEED) -> list[Job]:
    """Requests with prompts and outputs of 16 to 256 tokens, evenly spread; ids below `vocabulary`."""
    rng = random.Random(seed)
    return [
        Job(random_prompt(rng, rng.randint(16, 256), vocabulary), rng.randint(16, 256)) for _ in range(count)
    ]


def random_prompt(rng: random.Random, length: int, vocabulary: int) -> tuple[int, ...]:
    """Random token ids from 300 on. None of them is special in any of the benchmarks' tokenizers."""
    return tuple(rng.randrange(300, vocabulary) for _ in range(length))


def total_tokens(jobs: Sequence[Job]) -> int:
    """The number of tokens that all jobs together generate."""
    return sum(job.tokens for job in jobs)

"""The ways to serve one workload that `benchmarks.peers` compares."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.decoding import workload_seconds
from benchmarks.systems.published_loop import PublishedLoop
from benchmarks.systems.transformers_peer import continuous, generate_seconds
from benchmarks.turns import take_turns
from benchmarks.workloads.jobs import Job, total_tokens
from steering.engine.engine import Engine
from steering.specs import SteeringSpec

# Requests of the published loop that one repeat runs where it is sampled.
_LOOPED = 2


@dataclass(frozen=True, slots=True)
class Side:
    """One way to serve a part of the workload. `serve` takes the repeat and returns (useful tokens, seconds)."""

    part: str
    name: str
    is_sampled: bool
    serve: Callable[[int], tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Result:
    """A side's throughput in useful tokens a second, one value a repeat."""

    part: str
    name: str
    is_sampled: bool
    rates: tuple[float, ...]


def chosen(batches: Sequence[Sequence[Job]], repeat: int, *, whole: bool) -> list[Sequence[Job]]:
    """The batches that a repeat runs: all of them, or one, another in each repeat."""
    return list(batches) if whole else [batches[repeat % len(batches)]]


def make_batches(jobs: Sequence[Job], size: int) -> list[Sequence[Job]]:
    """Static batches in arrival order."""
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def ours(part: str, engine: Engine, jobs: Sequence[Job], steering: tuple[SteeringSpec, ...]) -> Side:
    """Our engine. It serves everything."""

    def serve(_: int) -> tuple[int, float]:
        return total_tokens(jobs), workload_seconds(engine, jobs, steering)

    return Side(part, "ours", False, serve)


def static(part: str, base: Any, jobs: Sequence[Job], size: int, *, whole: bool, delta: Any = None) -> Side:
    """transformers' `generate` in static batches of one size."""
    batches = make_batches(jobs, size)

    def serve(repeat: int) -> tuple[int, float]:
        taken = chosen(batches, repeat, whole=whole)
        return sum(map(total_tokens, taken)), generate_seconds(base, taken, delta)

    return Side(part, f"generate, batches of {size}", not whole and len(batches) > 1, serve)


def continuously(base: Any, jobs: Sequence[Job], at_once: int) -> Side:
    """transformers' continuous batching. It serves everything."""

    def serve(_: int) -> tuple[int, float]:
        return total_tokens(jobs), continuous(base, jobs, at_once)[0]

    return Side("unsteered", f"continuous batching, {at_once} at once", False, serve)


def looped(loop: PublishedLoop, jobs: Sequence[Job], *, whole: bool) -> Side:
    """The published loop, request by request."""
    batches = make_batches(jobs, _LOOPED)

    def serve(repeat: int) -> tuple[int, float]:
        taken = [job for batch in chosen(batches, repeat, whole=whole) for job in batch]
        began = time.perf_counter()
        for job in taken:
            loop.generate(job)
        return total_tokens(taken), time.perf_counter() - began

    return Side("across", "published loop", not whole and len(batches) > 1, serve)


def measure(sides: Sequence[Side], repeats: int) -> list[Result]:
    """Every side's throughput. The sides take turns, and report on stderr as they finish."""

    def timed(side: Side) -> Callable[[int], float]:
        def run(repeat: int) -> float:
            tokens, seconds = side.serve(repeat)
            sys.stderr.write(
                f"{repeat + 1}/{repeats} {side.part}, {side.name}: {tokens} in {seconds:.1f} s\n"
            )
            return tokens / seconds

        return run

    rates = take_turns({side: timed(side) for side in sides}, repeats, warm_up=0)
    return [Result(side.part, side.name, side.is_sampled, found) for side, found in rates.items()]


def ratios(results: Sequence[Result], part: str, peer: str) -> tuple[float, ...]:
    """Our throughput over that of the peer's best arrangement, repeat by repeat."""
    here = [result for result in results if result.part == part]
    mine = next(result.rates for result in here if result.name == "ours")
    theirs = zip(*(result.rates for result in here if result.name.startswith(peer)), strict=True)
    return tuple(rate / max(rates) for rate, rates in zip(mine, theirs, strict=True))

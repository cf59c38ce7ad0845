"""How the time of a decode step and the memory grow: with sequences, with context, with adapters used and unused.

`python -m benchmarks.scale` runs random weights of a real shape, the base and what steers it over one vocabulary. What
is compared takes turns within each repeat. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import PretrainedConfig

from benchmarks.folders import save_random
from benchmarks.growth import (
    Side,
    Sizes,
    Timings,
    prepare,
    time_adapters,
    time_contexts,
    time_idle,
    time_sequences,
)
from benchmarks.memory import Memory, measure_apart
from benchmarks.record import Bar, emit, show_bars, spread
from benchmarks.workloads import BASES, DELTAS, LLAMA_VOCABULARY, SEED, read_tokenizers

_MEGABYTE = 10**6


def take_memory(
    base: PretrainedConfig, delta: PretrainedConfig, tokenizer: Any, sizes: Sizes, repeats: int
) -> list[Memory]:
    """What fresh processes hold that serve one batch of these shapes."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = [
            save_random(config, tokenizer, Path(scratch) / name, seed=SEED + number)
            for number, (name, config) in enumerate({"base": base, "delta": delta}.items())
        ]
        return [
            measure_apart(*folders, sequences=sizes.adapters_sequences, idle=sizes.loaded)
            for _ in range(repeats)
        ]


def reference(side: Side) -> tuple[str, int, bool]:
    """Sides that agree in this are compared with the first of them."""
    sequences = 0 if side.part == "sequences" else side.sequences
    return side.part, sequences, side.steered


def over_first(side: Side, timings: Timings) -> tuple[float, ...]:
    """A side's step time over that of the first side of its kind, repeat by repeat."""
    first = next(other for other in timings if reference(other) == reference(side))
    return tuple(a / b for a, b in zip(timings[side], timings[first], strict=True))


def bars(timings: Timings, memory: Sequence[Memory], sizes: Sizes) -> list[Bar]:
    """The figures that are held against bars."""
    found = []
    for side in timings:
        ratio = over_first(side, timings)
        if side.part == "adapters" and side.count == max(sizes.adapters):
            name = f"step time, batch of {side.sequences}, {side.count} adapters over 1"
            found.append(Bar(name, ratio, at_most=1.35))
        if side.part == "idle" and side.count == max(sizes.idle):
            name = (
                f"step time, {'steered' if side.steered else 'unsteered'}, {side.count} idle adapters over 0"
            )
            found.append(Bar(name, ratio, at_most=1.05))
    if memory:
        idle = max(sizes.idle)
        most = tuple((taken.beyond + idle * taken.idle_beyond) / taken.beyond for taken in memory)
        name = f"memory beyond weights and pages, {idle} idle adapters over 0 (from {sizes.loaded})"
        found.append(Bar(name, most, at_most=1.05))
        beyond = tuple(taken.beyond / _MEGABYTE for taken in memory)
        found.append(Bar("resident memory beyond weights and pages, MB", beyond, at_most=700))
        each = tuple(taken.idle_beyond / _MEGABYTE for taken in memory)
        found.append(Bar("memory of an idle adapter beyond its weights, MB", each))
    return found


def show(timings: Timings) -> None:
    """Print the step times."""
    table = Table(
        "what grows", "to", "sequences", "", "ms a step (median, range)", "over the first", "steered over not"
    )
    for side, seconds in timings.items():
        plain = Side(side.part, side.count, side.sequences, False)
        tax = ""
        if side.steered and plain in timings:
            tax = spread([a / b for a, b in zip(seconds, timings[plain], strict=True)])
        table.add_row(
            side.part,
            str(side.count),
            str(side.sequences),
            "steered" if side.steered else "",
            spread([1000 * value for value in seconds], 1),
            f"{statistics.median(over_first(side, timings)):.2f}",
            tax,
        )
    Console(width=130).print(table)


def run(
    base: PretrainedConfig,
    delta: PretrainedConfig,
    tokenizer: Any,
    sizes: Sizes,
    *,
    repeats: int,
    device: str,
) -> tuple[Timings, list[Memory]]:
    """All timings, then the memory, which is a process's on a CPU only."""
    timings: Timings = {}
    bench = prepare(base, delta, tokenizer, sizes, device)
    for part in (time_sequences, time_contexts, time_adapters, time_idle):
        timings |= part(bench, repeats)
    del bench
    memory = take_memory(base, delta, tokenizer, sizes, repeats) if device == "cpu" else []
    return timings, memory


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--base", choices=BASES, default="qwen2-0.5b")
    parser.add_argument("--delta", choices=DELTAS, default="15m")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = read_tokenizers(Path(scratch)).small
    base, delta = BASES[options.base](LLAMA_VOCABULARY), DELTAS[options.delta]()
    report(base, delta, tokenizer, Sizes(), repeats=options.repeats, device=options.device)


def report(
    base: PretrainedConfig,
    delta: PretrainedConfig,
    tokenizer: Any,
    sizes: Sizes,
    *,
    repeats: int,
    device: str,
) -> None:
    """Measure these shapes, print the tables, then the JSON line."""
    timings, memory = run(base, delta, tokenizer, sizes, repeats=repeats, device=device)
    held = bars(timings, memory, sizes)
    show(timings)
    show_bars(held)
    figures = {
        "base": base.model_type,
        "steps": [
            {**asdict(side), "ms": [round(1000 * value, 3) for value in values]}
            for side, values in timings.items()
        ],
        "memory": [asdict(taken) for taken in memory],
    }
    emit("scale", held, figures, seed=SEED, repeats=repeats, device=device)


if __name__ == "__main__":
    main()

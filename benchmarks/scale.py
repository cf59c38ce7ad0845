"""The growth of step time and memory: with sequences, context, adapters in use, and unused adapters.

`python -m benchmarks.scale` runs random weights of real shapes. The base and the delta that steers it share one
vocabulary. The sides that are compared take turns within each repeat. Prints a table, then one JSON line.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

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
from benchmarks.report.bar import Bar, spread
from benchmarks.report.machine import torch_machine
from benchmarks.report.options import add_device, make_parser
from benchmarks.report.report import Report
from benchmarks.workloads.jobs import SEED
from benchmarks.workloads.models import save_random
from benchmarks.workloads.shapes import BASES, DELTAS, LLAMA_VOCABULARY, Pair, add_shapes
from benchmarks.workloads.tokenizers import read_tokenizers

_MEGABYTE = 10**6


def take_memory(pair: Pair, sizes: Sizes, repeats: int) -> list[Memory]:
    """The memory of new processes that serve one batch of these shapes."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = [
            save_random(config, pair.tokenizer, Path(scratch) / name, seed=SEED + number)
            for number, (name, config) in enumerate({"base": pair.base, "delta": pair.delta}.items())
        ]
        return [
            measure_apart(*folders, sequences=sizes.adapters_sequences, idle=sizes.loaded)
            for _ in range(repeats)
        ]


def reference(side: Side) -> tuple[str, int, bool]:
    """The key of sides that are compared with each other: with the first of them."""
    sequences = 0 if side.part == "sequences" else side.sequences
    return side.part, sequences, side.steered


def over_first(side: Side, timings: Timings) -> tuple[float, ...]:
    """A side's step time over that of the first side with the same reference, repeat by repeat."""
    first = next(other for other in timings if reference(other) == reference(side))
    return tuple(a / b for a, b in zip(timings[side], timings[first], strict=True))


def time_bars(timings: Timings, sizes: Sizes) -> list[Bar]:
    """The bars of step times: many adapters over one, and many unused adapters over none."""
    found = []
    for side in timings:
        ratio = over_first(side, timings)
        if side.part == "adapters" and side.count == max(sizes.adapters):
            name = f"step time, batch of {side.sequences}, {side.count} adapters over 1"
            found.append(Bar(name, ratio, at_most=1.35))
        if side.part == "idle" and side.count == max(sizes.idle):
            kind = "steered" if side.steered else "unsteered"
            name = f"step time, {kind}, {side.count} idle adapters over 0"
            found.append(Bar(name, ratio, at_most=1.05))
    return found


def memory_bars(memory: Sequence[Memory], sizes: Sizes) -> list[Bar]:
    """The bars of memory beyond weights and pages; none where it was not measured."""
    if not memory:
        return []
    idle = max(sizes.idle)
    most = tuple((taken.beyond + idle * taken.idle_beyond) / taken.beyond for taken in memory)
    beyond = tuple(taken.beyond / _MEGABYTE for taken in memory)
    each = tuple(taken.idle_beyond / _MEGABYTE for taken in memory)
    name = f"memory beyond weights and pages, {idle} idle adapters over 0 (from {sizes.loaded})"
    return [
        Bar(name, most, at_most=1.05),
        Bar("resident memory beyond weights and pages, MB", beyond, at_most=700),
        Bar("memory of an idle adapter beyond its weights, MB", each),
    ]


def step_table(timings: Timings) -> Table:
    """The step times."""
    headings = ["part", "count", "sequences", "", "ms a step (median, range)"]
    table = Table(*headings, "over the first", "steered over not")
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
    return table


def run(pair: Pair, sizes: Sizes, *, repeats: int, device: str) -> Report:
    """Take all timings, then the memory. Memory is measured on a CPU only, where it is the process's."""
    timings: Timings = {}
    bench = prepare(pair, sizes, device)
    for part in (time_sequences, time_contexts, time_adapters, time_idle):
        timings |= part(bench, repeats)
    del bench
    memory = take_memory(pair, sizes, repeats) if device == "cpu" else []
    figures = {
        "base": pair.base.model_type,
        "steps": [
            {**asdict(side), "ms": [round(1000 * value, 3) for value in values]}
            for side, values in timings.items()
        ],
        "memory": [asdict(taken) for taken in memory],
    }
    bars = [*time_bars(timings, sizes), *memory_bars(memory, sizes)]
    return Report("scale", step_table(timings), bars, figures, repeats, torch_machine(device))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the growth of step time and memory. Prints a table, then one JSON line."""
    parser = make_parser("scale", main.__doc__)
    add_device(parser)
    add_shapes(parser)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = read_tokenizers(Path(scratch)).small
    pair = Pair(BASES[options.base](LLAMA_VOCABULARY), DELTAS[options.delta](), tokenizer)
    run(pair, Sizes(), repeats=options.repeats, device=options.device).publish()


if __name__ == "__main__":
    main()

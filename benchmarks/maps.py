"""The cost of a vocabulary map: time, memory, and its speed against the published definition taken literally.

`python -m benchmarks.maps` builds the maps Qwen -> Llama-2 and Llama-3 -> Qwen in both forms: on one core, and with the
edit-distance fallback on two. It reads the larger map back from the cache. It also runs the definition's nested loop on
a sample of tokens, whose matches must be the same. Each case runs in a process of its own, so that its peak memory is
its own too. The peak is of the whole process, including the tokenizers and the libraries that load them. The tokenizers
are loaded and their vocabularies read before the clock starts. Prints a table, then one JSON line.

Bars are held against the fastest repeat, because other work on the machine can only add time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from benchmarks.map_cases import CASES, Case, Figures, run_case
from benchmarks.report.bar import Bar
from benchmarks.report.machine import machine
from benchmarks.report.options import make_parser
from benchmarks.report.report import Report
from benchmarks.workloads.tokenizers import TOKENIZERS, tokenizer_folder

PEAK_BAR = 1024.0


def measure(tokenizers: Path, repeats: int, sample: int) -> list[Figures]:
    """Run every case in a process of its own. Raises subprocess.CalledProcessError where one fails."""
    figures = []
    for number in range(len(CASES)):
        command = [sys.executable, "-m", "benchmarks.maps", "--case", str(number)]
        command += ["--tokenizers", str(tokenizers), "--repeats", str(repeats), "--sample", str(sample)]
        done = subprocess.run(
            command, cwd=Path(__file__).resolve().parents[1], stdout=subprocess.PIPE, text=True, check=True
        )
        figures.append(Figures(**json.loads(done.stdout.splitlines()[-1])))
    return figures


def bars(case: Case, got: Figures, *, real: bool) -> tuple[Bar, Bar]:
    """A case's fastest repeat and its peak memory. The limits are for the published tokenizers."""
    return (
        Bar(f"{case.label}: fastest, s", (min(got.wall),), at_most=case.bar if real else None),
        Bar(f"{case.label}: peak, MiB", (got.peak,), at_most=PEAK_BAR if real else None),
    )


def case_table(figures: Sequence[Figures]) -> Table:
    """Time and memory of every case."""
    table = Table("map", "form", "task", "cores", "fastest", "CPU", "peak MiB (before)", "nested loop")
    for case, got in zip(CASES, figures, strict=True):
        table.add_row(
            f"{case.base} -> {case.steering}",
            case.form,
            case.task,
            str(case.cores),
            _seconds(min(got.wall)),
            _seconds(min(got.processor)),
            f"{got.peak:.0f} ({got.loaded:.0f})",
            "" if got.nested_loop is None else f"{got.nested_loop:,.0f} s, {got.ratio:,.0f} x",
        )
    return table


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def run(published: Path, repeats: int, sample: int) -> Report:
    """Measure every case with the tokenizers in `published`, or with small ones where it lacks one."""
    with tempfile.TemporaryDirectory() as scratch:
        names = sorted({name for case in CASES for name in (case.base, case.steering)})
        tokenizers, real = tokenizer_folder(names, published, Path(scratch))
        every = measure(tokenizers, repeats, sample)
    held = [bars(case, got, real=real) for case, got in zip(CASES, every, strict=True)]
    figures = [
        {
            **asdict(case),
            **asdict(got),
            "ratio": got.ratio,
            "met": all(bar.met for bar in both) if real else None,
        }
        for case, got, both in zip(CASES, every, held, strict=True)
    ]
    return Report(
        "maps",
        case_table(every),
        [bar for both in held for bar in both],
        figures,
        repeats,
        machine("numpy", "rapidfuzz", "tokenizers", "transformers"),
        notes=() if real else ("The tokenizers are small ones trained for this run: there are no bars.",),
        settings={"sample": sample, "stand_ins": not real},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the building of vocabulary maps. Prints a table, then one JSON line."""
    parser = make_parser("maps", main.__doc__)
    parser.add_argument(
        "--tokenizers", type=Path, default=TOKENIZERS, help="the folder with qwen, llama-2 and llama-3"
    )
    parser.add_argument("--sample", type=int, default=60, help="tokens for the nested loop; 0 leaves it out")
    # The number of the case that this process runs alone.
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case is not None:
        figures = run_case(CASES[options.case], options.tokenizers, options.repeats, options.sample)
        sys.stdout.write(json.dumps(asdict(figures)) + "\n")
        return
    run(options.tokenizers, options.repeats, options.sample).publish()


if __name__ == "__main__":
    main()

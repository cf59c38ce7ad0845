"""What a vocabulary map costs: time, memory, and how much faster it is than the definition taken literally.

`python -m benchmarks.maps` builds the maps Qwen -> Llama-2 and Llama-3 -> Qwen in both forms on one core and with the
edit-distance fallback on two, reads the larger one back from the cache, and times the published nested loop on a sample
of tokens, whose matches must be the same. Each case has a process of its own, so that its peak memory is its own too:
the peak is of the whole process, tokenizers and the libraries that load them included. The tokenizers are loaded and
their vocabularies read before the clock starts. Prints a table, then one JSON line.

Bars are held against the fastest repeat: whatever else the machine does can only add to it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.checkout import commit
from benchmarks.stand_ins import make_stand_ins
from mapping_cache import (
    CanonicalVocabulary,
    Form,
    MapOptions,
    VocabularyMap,
    canonical_vocabulary,
    load_or_build,
    map_vocabularies,
)

SEED = 0
TOKENIZERS = Path(__file__).resolve().parents[2] / "shared" / "tokenizers"
PEAK_BAR = 1024.0
LOAD = "load from the cache"
BUILD, FALLBACK = "pm-mined", "pm-mined, mined as fallback"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is timed, the cores it may use and the seconds it may take."""

    base: str
    steering: str
    form: Form
    task: str
    cores: int
    bar: float

    @property
    def options(self) -> MapOptions:
        """No match is refused, so that every kind is built."""
        return MapOptions(form=self.form, min_similarity=0.0, fallback=self.task == FALLBACK)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a case took: wall and processor seconds a repeat, and the process's memory in MiB.

    `loaded` is the peak before the first repeat. `nested_loop` is the seconds that the definition's loop would take
    over the whole vocabulary, from a sample; None where it was not run.
    """

    wall: list[float]
    processor: list[float]
    loaded: float
    peak: float
    sizes: tuple[int, int]
    nested_loop: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times faster the map is than the nested loop, in processor time."""
        return None if self.nested_loop is None else self.nested_loop / min(self.processor)


CASES: tuple[Case, ...] = (
    *(Case("qwen", "llama-2", form, BUILD, 1, 2.0) for form in ("bytes", "surface")),
    *(Case("llama-3", "qwen", form, BUILD, 1, 4.0) for form in ("bytes", "surface")),
    *(
        Case(base, steering, form, FALLBACK, 2, 60.0)
        for base, steering in (("qwen", "llama-2"), ("llama-3", "qwen"))
        for form in ("bytes", "surface")
    ),
    Case("qwen", "llama-2", "bytes", LOAD, 1, 0.05),
)


def run_case(case: Case, tokenizers: Path, repeats: int, sample: int) -> Figures:
    """Times a case in this process, on no more than its cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case.cores])
    base, steering = (read_vocabulary(tokenizers / name) for name in (case.base, case.steering))
    loaded = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        task = _task(case, base, steering, folder)
        wall, processor = [], []
        for _ in range(repeats):
            began, spent = time.perf_counter(), time.process_time()
            built = task()
            wall.append(time.perf_counter() - began)
            processor.append(time.process_time() - spent)
    peak = peak_memory()
    nested = nested_loop(case.form, base, steering, built, sample) if case.task == BUILD and sample else None
    return Figures(wall, processor, loaded, peak, (len(base), len(steering)), nested)


def _task(
    case: Case, base: CanonicalVocabulary, steering: CanonicalVocabulary, folder: str
) -> Callable[[], VocabularyMap]:
    if case.task == LOAD:
        options = asdict(case.options)
        load_or_build(base, steering, cache_dir=folder, **options)
        return lambda: load_or_build(base, steering, cache_dir=folder, **options)
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    task = progress.add_task(case.task, total=None)

    def build() -> VocabularyMap:
        with progress:
            return map_vocabularies(
                base,
                steering,
                case.options,
                lambda done, total: progress.update(task, completed=done, total=total),
            )

    return build


def read_vocabulary(folder: Path) -> CanonicalVocabulary:
    """The canonical vocabulary of the tokenizer in a folder."""
    from transformers import AutoTokenizer

    return canonical_vocabulary(AutoTokenizer.from_pretrained(folder))


def peak_memory() -> float:
    """The most memory this process has held so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def nested_loop(
    form: Form, base: CanonicalVocabulary, steering: CanonicalVocabulary, built: VocabularyMap, sample: int
) -> float:
    """Seconds that the definition's loop would take for all tokens without an exact match, from `sample` of them.

    Wu et al., *Cross-model Control* (2024): every steering token is compared with every base token. Raises
    RuntimeError where the map has another match than the loop.
    """
    ordinary = built.similarity < 1.0
    ours: Sequence[bytes | str | None] = base.tokens if form == "bytes" else base.surfaces
    theirs: Sequence[bytes | str | None] = steering.tokens if form == "bytes" else steering.surfaces
    space: bytes | str = b" " if form == "bytes" else "\u2581"
    inexact = [token for token, own in enumerate(ours) if own and ordinary[token]]
    chosen = random.Random(SEED).sample(inexact, min(sample, len(inexact)))
    began = time.process_time()
    found = {token: _nearest(ours[token], theirs, space) for token in chosen}
    spent = time.process_time() - began
    for token, nearest in found.items():
        if nearest != built.nearest[token]:
            raise RuntimeError(
                f"base token {token}: the definition gives {nearest}, not {built.nearest[token]}"
            )
    return spent * len(inexact) / max(len(chosen), 1)


def _nearest(own: Any, theirs: Sequence[Any], space: Any) -> int:
    best, nearest = None, -1
    only_spaces = not own.strip(space)
    for token, other in enumerate(theirs):
        if not other or not (other.startswith(own) or own.startswith(other)):
            continue
        if other == space and not only_spaces:
            continue
        distance = Levenshtein.distance(own, other)
        if best is None or distance < best:
            best, nearest = distance, token
    return nearest


def measure(tokenizers: Path, repeats: int, sample: int) -> list[Figures]:
    """Every case, each in a fresh process. Raises subprocess.CalledProcessError where one fails."""
    figures = []
    for number in range(len(CASES)):
        command = [sys.executable, "-m", "benchmarks.maps", "--case", str(number)]
        command += ["--tokenizers", str(tokenizers), "--repeats", str(repeats), "--sample", str(sample)]
        done = subprocess.run(
            command, cwd=Path(__file__).resolve().parents[1], stdout=subprocess.PIPE, text=True, check=True
        )
        figures.append(Figures(**json.loads(done.stdout.splitlines()[-1])))
    return figures


def show(figures: Sequence[Figures], made: bool) -> None:
    """Prints the table; `made` says that the tokenizers are stand-ins."""
    table = Table("map", "form", "task", "cores", "fastest", "bar", "CPU", "peak MiB (before)", "nested loop")
    for case, got in zip(CASES, figures, strict=True):
        fastest = min(got.wall)
        colour = "" if made else ("[green]" if _meets(case, got) else "[red]")
        loop = "" if got.nested_loop is None else f"{got.nested_loop:,.0f} s, {got.ratio:,.0f} x"
        table.add_row(
            f"{case.base} -> {case.steering}",
            case.form,
            case.task,
            str(case.cores),
            colour + _seconds(fastest),
            _seconds(case.bar),
            _seconds(min(got.processor)),
            f"{got.peak:.0f} ({got.loaded:.0f})",
            loop,
        )
    console = Console(width=140)
    console.print(table)
    if made:
        console.print("The tokenizers are small stand-ins trained for this run: the bars do not apply.")


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def _meets(case: Case, got: Figures) -> bool:
    return min(got.wall) < case.bar and got.peak < PEAK_BAR


def report(figures: Sequence[Figures], repeats: int, sample: int, made: bool) -> dict[str, Any]:
    """All figures with what they were taken on."""
    packages = ("numpy", "rapidfuzz", "tokenizers", "transformers")
    return {
        "benchmark": "maps",
        "commit": commit(),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "seed": SEED,
        "repeats": repeats,
        "sample": sample,
        "stand_ins": made,
        "figures": [
            {
                **asdict(case),
                **asdict(got),
                "ratio": got.ratio,
                "met": None if made else _meets(case, got),
            }
            for case, got in zip(CASES, figures, strict=True)
        ],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.maps", description=main.__doc__)
    parser.add_argument(
        "--tokenizers", type=Path, default=TOKENIZERS, help="the folder with qwen, llama-2 and llama-3"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sample", type=int, default=60, help="tokens for the nested loop; 0 leaves it out")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case is not None:
        figures = run_case(CASES[options.case], options.tokenizers, options.repeats, options.sample)
        sys.stdout.write(json.dumps(asdict(figures)) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        names = sorted({name for case in CASES for name in (case.base, case.steering)})
        made = not all((options.tokenizers / name).is_dir() for name in names)
        tokenizers = make_stand_ins(Path(folder), names, SEED) if made else options.tokenizers
        every = measure(tokenizers, options.repeats, options.sample)
    show(every, made)
    line = report(every, options.repeats, options.sample, made)
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

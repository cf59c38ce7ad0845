"""The cases of `benchmarks.maps`, and what each takes when it runs in this process."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.nested_loop import nested_loop
from mapping_cache import (
    CanonicalVocabulary,
    Form,
    MapOptions,
    VocabularyMap,
    canonical_vocabulary,
    load_or_build,
    map_vocabularies,
)

LOAD = "load from the cache"
BUILD, FALLBACK = "pm-mined", "pm-mined, mined as fallback"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is timed, the number of cores that it may use, and its bar in seconds."""

    base: str
    steering: str
    form: Form
    task: str
    cores: int
    bar: float

    @property
    def options(self) -> MapOptions:
        """The map's options. No match is refused, so that every kind is built."""
        return MapOptions(form=self.form, min_similarity=0.0, fallback=self.task == FALLBACK)

    @property
    def label(self) -> str:
        """The case in one line."""
        return f"{self.base} -> {self.steering}, {self.form}, {self.task}"


@dataclass(frozen=True, slots=True)
class Figures:
    """The cost of a case: wall and processor seconds of each repeat, and the process's memory in MiB.

    `loaded` is the peak before the first repeat. `nested_loop`: the seconds that the definition's loop would take over
    the whole vocabulary, estimated from a sample; None where it did not run.
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
    """Time a case in this process, which is held to the case's cores from then on."""
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
    # Imported here, so that the process that only starts the cases does not load it.
    from transformers import AutoTokenizer

    return canonical_vocabulary(AutoTokenizer.from_pretrained(folder))


def peak_memory() -> float:
    """The most memory that this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)

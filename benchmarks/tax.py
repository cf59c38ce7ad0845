"""What steering costs: decode steps steered against unsteered, at 1, 8 and 32 running sequences.

`python -m benchmarks.tax` uses random weights of real shapes: a base of Qwen2-0.5B's, a delta of the published 15M
one's, both bfloat16, over one shared vocabulary of 32,000 tokens and across the vocabularies of Qwen and Llama-2. The
sides take turns within each repeat, and the figures are ratios within one run. Prints a table, then one JSON line.
On a GPU: `--device cuda --base llama-7b --batch 1 32 128`, and `--delta 110m` as well.

The text of random weights is noise, and what `rescore` does depends on the text. So it is measured thrice: on noise
as the engine serves it (where few tokens are plausible enough to be rescored), on noise with every candidate rescored
(nothing costs more), and on the bundled demo's own steered text, the demo's models carrying the weight of the large
ones (`benchmarks.ballast`).
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from transformers import PretrainedConfig

from benchmarks.ballast import with_ballast
from benchmarks.bandwidth import bytes_per_second, bytes_per_step
from benchmarks.decoding import step_seconds
from benchmarks.record import Bar, emit, show_bars, spread
from benchmarks.workloads import (
    BASES,
    DELTAS,
    KL_EVERY,
    LLAMA_VOCABULARY,
    QWEN_VOCABULARY,
    SEED,
    Tokenizers,
    random_delta,
    random_model,
    read_tokenizers,
)
from demo import corpus, demo_adapters, demo_models, world
from steering.adapters import load_adapter
from steering.bridges import rescore
from steering.engine.config import EngineConfig
from steering.engine.engine import Engine
from steering.model.loaded_model import LoadedModel
from steering.model.loading import load_model
from steering.specs import SteeringSpec
from steering.steerers.trials import score_trials

NAME = "delta"
BATCHES = (1, 8, 32)
STEPS = 24
_SHARED_BARS = {"cpu": {1: 0.93, 8: 0.95, 32: 0.95}, "cuda": {1: 0.97, 32: 0.97, 128: 0.97}}
# Of what reading the weights at the measured bandwidth allows to one sequence, a GPU's share.
_BANDWIDTH_BAR = {"cpu": None, "cuda": 0.8}


@dataclass(frozen=True, slots=True)
class Side:
    """One way to steer, held against the same engine unsteered. `bars`: by batch, the least that is asked for."""

    label: str
    engine: Engine
    bridge: str
    bars: dict[int, float]
    prompts: tuple[tuple[int, ...], ...] | None = None
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """A side at one batch size: seconds a step unsteered and steered, and rows rescored a row and step, by repeat."""

    side: Side
    batch: int
    alone: tuple[float, ...]
    steered: tuple[float, ...]
    rescored: float

    @property
    def bar(self) -> Bar:
        """Steered over unsteered throughput."""
        ratios = tuple(a / b for a, b in zip(self.alone, self.steered, strict=True))
        return Bar(f"{self.side.label}, {self.batch} sequences", ratios, self.side.bars.get(self.batch))


def make_sides(
    tokenizers: Tokenizers, base: str, delta: str, *, device: str, sequences: int
) -> Iterator[tuple[Side, ...]]:
    """The sides, those of one engine together; an engine is made when its turn comes, for so many sequences."""
    shape = BASES[base]
    tiny = random_model(DELTAS[delta](), tokenizers.small, device=device, seed=SEED + 1)
    shared = random_model(shape(LLAMA_VOCABULARY), tokenizers.small, device=device)
    bars = _SHARED_BARS[torch.device(device).type]
    engine = _engine(shared, tiny, sequences)
    yield (Side("shared vocabulary", engine, "map", bars),)
    del engine
    if sequences <= max(BATCHES):
        yield tuple(_demo_sides(shared, tiny, device))
    del shared
    crossed = _engine(random_model(shape(QWEN_VOCABULARY), tokenizers.large, device=device), tiny, sequences)
    floor = {1: 0.75, 8: 0.75, 32: 0.75}
    yield (
        Side("across, map", crossed, "map", {1: 0.90, 8: 0.93, 32: 0.93}),
        Side("across, rescore", crossed, "rescore", floor),
        Side("across, rescore, every candidate", crossed, "rescore", floor, everything=True),
    )


def _engine(base: LoadedModel, delta: LoadedModel, sequences: int) -> Engine:
    engine = Engine(base, EngineConfig(max_num_seqs=sequences, kl_every=KL_EVERY))
    engine.session.attach(random_delta(NAME, delta))
    return engine


def _demo_sides(base: LoadedModel, delta: LoadedModel, device: str) -> Iterator[Side]:
    """The demo's second base, steered across vocabularies by its `forget`, under the large models' weight."""
    loaded = load_model(demo_models()["base-b"], device=device)
    adapter = load_adapter("forget", demo_adapters()["forget"], device=device)
    engine = Engine(with_ballast(loaded, base), EngineConfig(max_num_seqs=max(BATCHES), kl_every=KL_EVERY))
    models = tuple(with_ballast(model, delta) for model in adapter.models)
    engine.session.attach(replace(adapter, name=NAME, models=models))
    probes = [*corpus.probes(world.forgotten(), held_out=True), *corpus.probes(world.kept(), held_out=True)]
    random.Random(SEED).shuffle(probes)
    prompts = tuple(_prompt(loaded.tokenizer, probe.question) for probe in probes[: max(BATCHES)])
    bars = dict.fromkeys(BATCHES, 0.90)
    yield Side("the demo's text, map", engine, "map", {}, prompts)
    yield Side("the demo's text, rescore", engine, "rescore", bars, prompts)


def _prompt(tokenizer: Any, question: str) -> tuple[int, ...]:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


@contextmanager
def _counting(everything: bool) -> Iterator[Callable[[], int]]:
    """Count the rows that need a steering model's time to be rescored; with `everything`, let no candidate off."""
    counted = 0

    def count(steerer: Any, trials: Any) -> Any:
        nonlocal counted
        counted += len({id(trial.row) for trial in trials})
        return score_trials(steerer, trials)

    floor = 0.0 if everything else rescore.PLAUSIBLE
    with mock.patch.object(rescore, "score_trials", count), mock.patch.object(rescore, "PLAUSIBLE", floor):
        yield lambda: counted


def measure(sides: Sequence[Side], repeats: int, batches: Sequence[int], steps: int) -> list[Timing]:
    """All sides of one engine at all batch sizes, taking turns; a short round before the first warms up."""
    engine = sides[0].engine
    alone: dict[int, list[float]] = {batch: [] for batch in batches}
    steered: dict[tuple[int, int], list[float]] = {}
    rescored: dict[tuple[int, int], float] = {}
    for repeat in range(-1, repeats):
        count = steps if repeat >= 0 else 3
        for batch in batches:
            plain = step_seconds(engine, [()] * batch, count, prompts=sides[0].prompts)
            for number, side in enumerate(sides):
                spec = SteeringSpec(NAME, bridge=side.bridge)
                with _counting(side.everything) as counted:
                    taken = step_seconds(engine, [(spec,)] * batch, count, prompts=side.prompts)
                if repeat >= 0:
                    steered.setdefault((number, batch), []).append(taken)
                    rescored[number, batch] = counted() / batch / count
            if repeat >= 0:
                alone[batch].append(plain)
    return [
        Timing(side, batch, tuple(alone[batch]), tuple(steered[number, batch]), rescored[number, batch])
        for number, side in enumerate(sides)
        for batch in batches
    ]


def bandwidth_share(timings: Sequence[Timing], shared: PretrainedConfig, device: str) -> Bar:
    """One unsteered sequence over the shared vocabulary: what reading its weights would take, over a step's time."""
    floor = bytes_per_step(shared) / bytes_per_second(device)
    alone = next(timing.alone for timing in timings if timing.batch == 1)
    return Bar(
        "of the memory's bandwidth, 1 sequence unsteered",
        tuple(floor / seconds for seconds in alone),
        _BANDWIDTH_BAR[torch.device(device).type],
    )


def show(timings: Sequence[Timing]) -> None:
    """Print the step times behind the ratios."""
    table = Table("side", "sequences", "ms a step, unsteered", "steered", "rows rescored")
    for timing in timings:
        table.add_row(
            timing.side.label,
            str(timing.batch),
            spread([1e3 * seconds for seconds in timing.alone], 1),
            spread([1e3 * seconds for seconds in timing.steered], 1),
            f"{timing.rescored:.0%}" if timing.side.bridge == "rescore" else "",
        )
    Console(width=130).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tax", description=main.__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--base", choices=BASES, default="qwen2-0.5b")
    parser.add_argument("--delta", choices=DELTAS, default="15m")
    options = parser.parse_args(arguments)
    timings: list[Timing] = []
    with tempfile.TemporaryDirectory() as scratch:
        tokenizers = read_tokenizers(Path(scratch))
    every = make_sides(
        tokenizers, options.base, options.delta, device=options.device, sequences=max(options.batch)
    )
    for sides in every:
        timings += measure(sides, options.repeats, options.batch, options.steps)
    show(timings)
    bars = [timing.bar for timing in timings]
    if 1 in options.batch:
        bars.append(bandwidth_share(timings, BASES[options.base](LLAMA_VOCABULARY), options.device))
    show_bars(bars)
    figures = [
        {
            "side": timing.side.label,
            "batch": timing.batch,
            "unsteered_seconds": [round(seconds, 5) for seconds in timing.alone],
            "steered_seconds": [round(seconds, 5) for seconds in timing.steered],
            "rows_rescored": round(timing.rescored, 3),
            "real_tokenizers": tokenizers.real,
        }
        for timing in timings
    ]
    emit("tax", bars, figures, seed=SEED, repeats=options.repeats, device=options.device)


if __name__ == "__main__":
    main()

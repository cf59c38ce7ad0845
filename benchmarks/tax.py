"""The cost of steering: decode steps steered against unsteered, at 1, 8 and 32 running sequences.

`python -m benchmarks.tax` uses random weights of real shapes, in bfloat16: a base of Qwen2-0.5B's and a delta of the
published 15M one's. They run over one shared vocabulary of 32,000 tokens, and across the vocabularies of Qwen and
Llama-2. The sides take turns within each repeat, and the figures are ratios within one run. Prints a table, then one
JSON line. On a GPU: `--device cuda --base llama-7b --batch 1 32 128`, and `--delta 110m` as well.

Random weights write noise, and the work of `rescore` depends on the text. So `rescore` is measured three times: on
noise as the engine serves it (few tokens are plausible enough to be rescored), on noise with every candidate rescored
(nothing costs more), and on the bundled demo's own steered text, where each of the demo's passes also runs the large
model's (`benchmarks.ballast`).
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from transformers import PretrainedConfig

from benchmarks.ballast import with_ballast
from benchmarks.bandwidth import bytes_per_second, bytes_per_step
from benchmarks.decoding import step_seconds
from benchmarks.report.bar import Bar, spread
from benchmarks.report.machine import torch_machine
from benchmarks.report.options import add_device, make_parser
from benchmarks.report.report import Report
from benchmarks.rescoring import COUNTED, counting
from benchmarks.turns import take_turns
from benchmarks.workloads.engines import make_engine
from benchmarks.workloads.jobs import SEED
from benchmarks.workloads.models import random_delta, random_model
from benchmarks.workloads.shapes import Shapes, add_shapes, named_shapes
from benchmarks.workloads.tokenizers import Tokenizers, read_tokenizers
from demo import corpus, demo_adapters, demo_models, world
from steering.adapters import load_adapter
from steering.engine.engine import Engine
from steering.model.loaded_model import LoadedModel
from steering.model.loading import load_model
from steering.specs import SteeringSpec

NAME = "delta"
BATCHES = (1, 8, 32)
STEPS = 24
_WARM_UP_STEPS = 3
_SHARED_BARS = {"cpu": {1: 0.93, 8: 0.95, 32: 0.95}, "cuda": {1: 0.97, 32: 0.97, 128: 0.97}}
# The least share of the speed that the memory's bandwidth allows to one sequence.
_BANDWIDTH_BAR = {"cpu": None, "cuda": 0.8}


@dataclass(frozen=True, slots=True)
class Setting:
    """A run's options. `tokenizers.small` is the delta's vocabulary."""

    shapes: Shapes
    tokenizers: Tokenizers
    batches: tuple[int, ...] = BATCHES
    steps: int = STEPS
    repeats: int = 3
    device: str = "cpu"

    @property
    def sequences(self) -> int:
        """The largest batch."""
        return max(self.batches)

    def model(self, config: PretrainedConfig, tokenizer: Any, seed: int = SEED) -> LoadedModel:
        """A random model of this shape."""
        return random_model(config, tokenizer, dtype=self.shapes.dtype, device=self.device, seed=seed)


@dataclass(frozen=True, slots=True)
class Side:
    """One way to steer, held against the same engine unsteered.

    `bars`: the least ratio that is asked for, by batch size. `everything`: `rescore` tries every candidate.
    """

    label: str
    engine: Engine
    bridge: str
    bars: dict[int, float]
    prompts: tuple[tuple[int, ...], ...] | None = None
    everything: bool = False

    def unsteered(self, batch: int, steps: int) -> float:
        """The seconds of a step that nothing steers."""
        return step_seconds(self.engine, [()] * batch, steps, prompts=self.prompts)

    def steered(self, batch: int, steps: int) -> tuple[float, float]:
        """The seconds of a steered step, and the share of rows that it rescored."""
        # Trials are counted in every timing. That takes microseconds a row.
        bridge = COUNTED if self.bridge == "rescore" else self.bridge
        spec = SteeringSpec(NAME, bridge=bridge)
        with counting(everything=self.everything) as counted:
            seconds = step_seconds(self.engine, [(spec,)] * batch, steps, prompts=self.prompts)
        return seconds, counted.rows / batch / steps


@dataclass(frozen=True, slots=True)
class Timing:
    """A side at one batch size: seconds a step unsteered and steered by repeat, and the share of rows rescored."""

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

    def as_dict(self) -> dict[str, Any]:
        """The timing in the JSON line."""
        return {
            "side": self.side.label,
            "batch": self.batch,
            "unsteered_seconds": [round(seconds, 5) for seconds in self.alone],
            "steered_seconds": [round(seconds, 5) for seconds in self.steered],
            "rows_rescored": round(self.rescored, 3),
        }


def make_sides(setting: Setting) -> Iterator[tuple[Side, ...]]:
    """The sides, those of one engine together. An engine is made when its turn comes, to save memory."""
    shapes, tokenizers = setting.shapes, setting.tokenizers
    tiny = setting.model(shapes.delta, tokenizers.small, seed=SEED + 1)
    shared = setting.model(shapes.shared, tokenizers.small)
    engine = _engine(shared, tiny, setting.sequences)
    yield (Side("shared vocabulary", engine, "map", _SHARED_BARS[torch.device(setting.device).type]),)
    del engine
    if setting.sequences <= max(BATCHES):
        yield tuple(_demo_sides(shared, tiny, setting.device))
    del shared
    crossed = _engine(setting.model(shapes.crossed, tokenizers.large), tiny, setting.sequences)
    floor = {1: 0.75, 8: 0.75, 32: 0.75}
    yield (
        Side("across, map", crossed, "map", {1: 0.90, 8: 0.93, 32: 0.93}),
        Side("across, rescore", crossed, "rescore", floor),
        Side("across, rescore, every candidate", crossed, "rescore", floor, everything=True),
    )


def _engine(base: LoadedModel, delta: LoadedModel, sequences: int) -> Engine:
    engine = make_engine(base, sequences)
    engine.session.attach(random_delta(NAME, delta))
    return engine


def _demo_sides(base: LoadedModel, delta: LoadedModel, device: str) -> Iterator[Side]:
    """The demo's second base, steered across vocabularies by its `forget`, with the large models as ballast."""
    loaded = load_model(demo_models()["base-b"], device=device)
    adapter = load_adapter("forget", demo_adapters()["forget"], device=device)
    engine = make_engine(with_ballast(loaded, base), max(BATCHES))
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


def measure(sides: Sequence[Side], setting: Setting) -> list[Timing]:
    """All sides of one engine at all batch sizes, taking turns. A short round before the first warms up."""

    def timed(side: Side, batch: int, *, steered: bool) -> Callable[[int], tuple[float, float]]:
        def run(repeat: int) -> tuple[float, float]:
            steps = setting.steps if repeat >= 0 else _WARM_UP_STEPS
            return side.steered(batch, steps) if steered else (side.unsteered(batch, steps), 0.0)

        return run

    runs: dict[tuple[int, str], Callable[[int], tuple[float, float]]] = {}
    for batch in setting.batches:
        runs[batch, ""] = timed(sides[0], batch, steered=False)
        for side in sides:
            runs[batch, side.label] = timed(side, batch, steered=True)
    taken = take_turns(runs, setting.repeats)
    return [
        Timing(
            side,
            batch,
            alone=tuple(seconds for seconds, _ in taken[batch, ""]),
            steered=tuple(seconds for seconds, _ in taken[batch, side.label]),
            # The text is the same in every repeat, and so are the rows.
            rescored=taken[batch, side.label][-1][1],
        )
        for side in sides
        for batch in setting.batches
    ]


def bandwidth_share(timings: Sequence[Timing], shared: PretrainedConfig, device: str) -> Bar:
    """One unsteered sequence over the shared vocabulary: the time to read its weights over the time of a step."""
    floor = bytes_per_step(shared) / bytes_per_second(device)
    alone = next(timing.alone for timing in timings if timing.batch == 1)
    return Bar(
        "of the memory's bandwidth, 1 sequence unsteered",
        tuple(floor / seconds for seconds in alone),
        _BANDWIDTH_BAR[torch.device(device).type],
    )


def step_table(timings: Sequence[Timing]) -> Table:
    """The step times behind the ratios."""
    table = Table("side", "sequences", "ms a step, unsteered", "steered", "rows rescored")
    for timing in timings:
        table.add_row(
            timing.side.label,
            str(timing.batch),
            spread([1e3 * seconds for seconds in timing.alone], 1),
            spread([1e3 * seconds for seconds in timing.steered], 1),
            f"{timing.rescored:.0%}" if timing.side.bridge == "rescore" else "",
        )
    return table


def run(setting: Setting) -> Report:
    """Measure every side."""
    timings = [timing for sides in make_sides(setting) for timing in measure(sides, setting)]
    bars = [timing.bar for timing in timings]
    if 1 in setting.batches:
        bars.append(bandwidth_share(timings, setting.shapes.shared, setting.device))
    real = setting.tokenizers.real
    figures = [{**timing.as_dict(), "real_tokenizers": real} for timing in timings]
    return Report("tax", step_table(timings), bars, figures, setting.repeats, torch_machine(setting.device))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure decode steps steered against unsteered. Prints a table, then one JSON line."""
    parser = make_parser("tax", main.__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=list(BATCHES), help="running sequences")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"decode steps a timing (default: {STEPS})")
    add_device(parser)
    add_shapes(parser)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizers = read_tokenizers(Path(scratch))
    shapes = named_shapes(options.base, options.delta)
    batches = tuple(options.batch)
    run(Setting(shapes, tokenizers, batches, options.steps, options.repeats, options.device)).publish()


if __name__ == "__main__":
    main()

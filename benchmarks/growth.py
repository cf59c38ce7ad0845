"""Decode steps timed as one count grows: sequences, tokens of context, adapters in use, or unused adapters."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.decoding import step_seconds, workload_seconds
from benchmarks.turns import take_turns
from benchmarks.workloads.engines import make_engine
from benchmarks.workloads.jobs import SEED, Job, random_prompt
from benchmarks.workloads.models import random_delta, random_model
from benchmarks.workloads.shapes import Pair
from steering.engine.engine import Engine
from steering.specs import SteeringSpec
from steering.steerers.steerer import Steerer


@dataclass(frozen=True, slots=True)
class Sizes:
    """The values that each count takes. `steps`: decode steps a timing. `loaded`: unused adapters in memory tests."""

    sequences: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    contexts: tuple[int, ...] = (64, 256, 1024, 4096)
    context_sequences: tuple[int, ...] = (1, 8)
    adapters: tuple[int, ...] = (1, 2, 4, 8)
    adapters_sequences: int = 32
    idle: tuple[int, ...] = (0, 10, 100)
    idle_sequences: int = 8
    loaded: int = 10
    steps: int = 10
    context_steps: int = 6


@dataclass(frozen=True, slots=True)
class Side:
    """One thing that is timed. `count` is what grows in its `part`."""

    part: str
    count: int
    sequences: int
    steered: bool


Timings = dict[Side, tuple[float, ...]]
"""Seconds a step of each side, one value a repeat."""

_Runs = dict[Side, Callable[[int], float]]


@dataclass(frozen=True, slots=True)
class Bench:
    """An engine with one adapter attached, and more adapters that are ready.

    `others` have weights of their own. `idle` share the weights of one model.
    """

    engine: Engine
    sizes: Sizes
    others: tuple[Steerer, ...]
    idle: tuple[Steerer, ...]
    steered: tuple[SteeringSpec, ...] = field(default=(SteeringSpec("adapter-0"),))

    def timed(
        self,
        steering: Sequence[tuple[SteeringSpec, ...]],
        steps: int,
        prompts: Sequence[tuple[int, ...]] | None = None,
    ) -> Callable[[int], float]:
        """A side for `take_turns`: a batch with one sequence for each of `steering`."""
        return lambda repeat: step_seconds(self.engine, steering, steps, prompts=prompts)

    def alike(self, sequences: int, *, steered: bool) -> list[tuple[SteeringSpec, ...]]:
        """The steering of a batch that the first adapter steers, or nothing."""
        return [self.steered if steered else ()] * sequences


def prepare(pair: Pair, sizes: Sizes, device: str) -> Bench:
    """Random models of these shapes, and one engine that is large enough for every side."""
    most = max(*sizes.sequences, *sizes.context_sequences, sizes.adapters_sequences, sizes.idle_sequences)
    engine = make_engine(random_model(pair.base, pair.tokenizer, device=device), most)
    models = [
        random_model(pair.delta, pair.tokenizer, device=device, seed=SEED + 1 + number)
        for number in range(max(sizes.adapters))
    ]
    session = engine.session
    session.attach(random_delta("adapter-0", models[0]))
    others = tuple(
        session.prepare(random_delta(f"adapter-{number}", model))
        for number, model in enumerate(models)
        if number
    )
    # Step times do not depend on whether weights that nothing reads are held once or a hundred times. Their memory is
    # measured elsewhere.
    idle = tuple(
        session.prepare(random_delta(f"idle-{number}", models[-1])) for number in range(max(sizes.idle))
    )
    return Bench(engine, sizes, others, idle)


def time_sequences(bench: Bench, repeats: int) -> Timings:
    """Step time by the number of running sequences."""
    runs: _Runs = {}
    for count in bench.sizes.sequences:
        for steered in (False, True):
            side = Side("sequences", count, count, steered)
            runs[side] = bench.timed(bench.alike(count, steered=steered), bench.sizes.steps)
    return take_turns(runs, repeats)


def time_contexts(bench: Bench, repeats: int) -> Timings:
    """Step time by the number of tokens before the one that is drawn."""
    sizes, engine = bench.sizes, bench.engine
    rng = random.Random(SEED)
    vocabulary = engine.base.vocab_size
    prompts = [
        random_prompt(rng, max(sizes.contexts), vocabulary) for _ in range(max(sizes.context_sequences))
    ]
    # The longest prompts take the base seconds to read. From here on its prefix cache has them.
    workload_seconds(engine, [Job(prompt, 1) for prompt in prompts], ())
    runs: _Runs = {}
    for context in sizes.contexts:
        for count in sizes.context_sequences:
            for steered in (False, True):
                runs[Side("context", context, count, steered)] = bench.timed(
                    bench.alike(count, steered=steered),
                    sizes.context_steps,
                    [prompt[:context] for prompt in prompts[:count]],
                )
    # Without a warm-up: each side draws some tokens before those that are timed.
    return take_turns(runs, repeats, warm_up=0)


def time_adapters(bench: Bench, repeats: int) -> Timings:
    """Step time of one batch by the number of different adapters that steer it."""
    sizes, session = bench.sizes, bench.engine.session
    for steerer in bench.others:
        session.install(steerer)
    runs: _Runs = {}
    for count in sizes.adapters:
        each = [(SteeringSpec(f"adapter-{n % count}"),) for n in range(sizes.adapters_sequences)]
        runs[Side("adapters", count, sizes.adapters_sequences, True)] = bench.timed(each, sizes.steps)
    timings = take_turns(runs, repeats)
    for steerer in bench.others:
        session.detach(steerer.adapter.name)
    return timings


def time_idle(bench: Bench, repeats: int) -> Timings:
    """Step time by the number of attached adapters that steer nothing."""
    sizes, session = bench.sizes, bench.engine.session

    def timed(count: int, *, steered: bool) -> Callable[[int], float]:
        step = bench.timed(bench.alike(sizes.idle_sequences, steered=steered), sizes.steps)

        def run(repeat: int) -> float:
            for steerer in bench.idle[:count]:
                session.install(steerer)
            seconds = step(repeat)
            for steerer in bench.idle[:count]:
                session.detach(steerer.adapter.name)
            return seconds

        return run

    runs: _Runs = {}
    for steered in (False, True):
        for count in sizes.idle:
            runs[Side("idle", count, sizes.idle_sequences, steered)] = timed(count, steered=steered)
    return take_turns(runs, repeats)

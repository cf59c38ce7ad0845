"""Decode steps timed as one thing grows: sequences, context, adapters in use, adapters that nobody uses."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from transformers import PretrainedConfig

from benchmarks.decoding import step_seconds, workload_seconds
from benchmarks.workloads import KL_EVERY, SEED, Job, random_delta, random_model, random_prompt
from steering.engine.engine import Engine, EngineConfig
from steering.specs import SteeringSpec
from steering.steerers.steerer import Steerer


@dataclass(frozen=True, slots=True)
class Sizes:
    """How far everything is taken. `steps`: decode steps a timing; `loaded`: idle adapters whose memory is taken."""

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
    """One thing that is timed; `count` is what grows in its `part`."""

    part: str
    count: int
    sequences: int
    steered: bool


Timings = dict[Side, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Bench:
    """The engine with one adapter attached, and others made ready: `others` have weights of their own, `idle` share."""

    engine: Engine
    sizes: Sizes
    others: tuple[Steerer, ...]
    idle: tuple[Steerer, ...]
    steered: tuple[SteeringSpec, ...] = field(default=(SteeringSpec("adapter-0"),))


def prepare(
    base: PretrainedConfig, delta: PretrainedConfig, tokenizer: Any, sizes: Sizes, device: str
) -> Bench:
    """Models of these shapes, in one engine that is large enough for all that is timed."""
    most = max(*sizes.sequences, *sizes.context_sequences, sizes.adapters_sequences, sizes.idle_sequences)
    # A model writes its attention function into its configuration, so that each needs one of its own.
    loaded = random_model(deepcopy(base), tokenizer, device=device)
    engine = Engine(loaded, EngineConfig(max_num_seqs=most, kl_every=KL_EVERY))
    models = [
        random_model(deepcopy(delta), tokenizer, device=device, seed=SEED + 1 + number)
        for number in range(max(sizes.adapters))
    ]
    engine.session.attach(random_delta("adapter-0", models[0]))
    others = tuple(
        engine.session.prepare(random_delta(f"adapter-{number}", model))
        for number, model in enumerate(models)
        if number
    )
    # Time cannot tell whether what is not read is held once or a hundred times; memory is taken apart.
    idle = tuple(
        engine.session.prepare(random_delta(f"idle-{number}", models[-1]))
        for number in range(max(sizes.idle))
    )
    return Bench(engine, sizes, others, idle)


def take_turns(sides: Mapping[Side, Callable[[], float]], repeats: int, *, warm_up: int = 1) -> Timings:
    """Every side once a repeat; `warm_up` rounds before the first are thrown away."""
    found: dict[Side, list[float]] = {side: [] for side in sides}
    for repeat in range(-warm_up, repeats):
        for side, run in sides.items():
            seconds = run()
            if repeat >= 0:
                found[side].append(seconds)
    return {side: tuple(values) for side, values in found.items()}


def time_sequences(bench: Bench, repeats: int) -> Timings:
    """Step time by running sequences."""
    sides: dict[Side, Callable[[], float]] = {}
    for count in bench.sizes.sequences:
        for steered in (False, True):
            each = [bench.steered if steered else ()] * count
            sides[Side("sequences", count, count, steered)] = partial(
                step_seconds, bench.engine, each, bench.sizes.steps
            )
    return take_turns(sides, repeats)


def time_contexts(bench: Bench, repeats: int) -> Timings:
    """Step time by tokens before the one that is drawn."""
    sizes, engine = bench.sizes, bench.engine
    rng = random.Random(SEED)
    vocabulary = engine.base.vocab_size
    prompts = [
        random_prompt(rng, max(sizes.contexts), vocabulary) for _ in range(max(sizes.context_sequences))
    ]
    _remember(engine, prompts)
    sides: dict[Side, Callable[[], float]] = {}
    for context in sizes.contexts:
        for count in sizes.context_sequences:
            for steered in (False, True):
                sides[Side("context", context, count, steered)] = partial(
                    step_seconds,
                    engine,
                    [bench.steered if steered else ()] * count,
                    sizes.context_steps,
                    prompts=[prompt[:context] for prompt in prompts[:count]],
                )
    # The longest prompts take seconds to read, and each side draws some tokens before those that are timed.
    return take_turns(sides, repeats, warm_up=0)


@torch.inference_mode()
def _remember(engine: Engine, prompts: Sequence[tuple[int, ...]]) -> None:
    """Put all prompts into the base's prefix cache, each on pages of its own, computing only the first.

    The others get copies of its keys and values. A step takes as long over them as over true ones, and prompts that
    are found need not be computed in every timing.
    """
    workload_seconds(engine, [Job(prompts[0], 1)], ())
    allocator, cache = engine._allocator, engine._runner.cache
    pages = allocator.find_prefix(prompts[0])
    for prompt in prompts[1:]:
        copies = allocator.allocate(len(pages))
        cache.copy_pages(pages, copies)
        allocator.cache_prefix(prompt[: len(copies) * allocator.page_size], copies)
        allocator.release(copies)
    allocator.release(pages)


def time_adapters(bench: Bench, repeats: int) -> Timings:
    """Step time of one batch by how many different adapters steer it."""
    sizes, engine = bench.sizes, bench.engine
    for steerer in bench.others:
        engine.session.install(steerer)
    sides: dict[Side, Callable[[], float]] = {}
    for count in sizes.adapters:
        each = [(SteeringSpec(f"adapter-{n % count}"),) for n in range(sizes.adapters_sequences)]
        sides[Side("adapters", count, sizes.adapters_sequences, True)] = partial(
            step_seconds, engine, each, sizes.steps
        )
    timings = take_turns(sides, repeats)
    for steerer in bench.others:
        engine.session.detach(steerer.adapter.name)
    return timings


def time_idle(bench: Bench, repeats: int) -> Timings:
    """Step time by adapters that are attached and steer nothing."""
    sizes = bench.sizes

    def run(count: int, each: Sequence[tuple[SteeringSpec, ...]]) -> float:
        for steerer in bench.idle[:count]:
            bench.engine.session.install(steerer)
        seconds = step_seconds(bench.engine, each, sizes.steps)
        for steerer in bench.idle[:count]:
            bench.engine.session.detach(steerer.adapter.name)
        return seconds

    sides: dict[Side, Callable[[], float]] = {}
    for steered in (False, True):
        each = [bench.steered if steered else ()] * sizes.idle_sequences
        for count in sizes.idle:
            sides[Side("idle", count, sizes.idle_sequences, steered)] = partial(run, count, each)
    return take_turns(sides, repeats)

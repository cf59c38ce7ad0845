"""The time that an engine takes: for a decode step, and for a whole workload."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from benchmarks.workloads.jobs import SEED, Job, random_prompt
from steering.engine.engine import Engine
from steering.engine.outputs import StepOutput
from steering.engine.request import Request, SamplingParams
from steering.specs import SteeringSpec

PROMPT = 32


def step_seconds(
    engine: Engine,
    steering: Sequence[tuple[SteeringSpec, ...]],
    steps: int,
    *,
    prompts: Sequence[tuple[int, ...]] | None = None,
    prompt_length: int = PROMPT,
) -> float:
    """The seconds of a decode step with one greedy sequence for each of `steering`. Reading the prompts is not timed.

    Prompts are random tokens unless given. Raises RuntimeError when a request fails.
    """
    rng = random.Random(SEED)
    for index, specs in enumerate(steering):
        prompt = (
            prompts[index] if prompts else random_prompt(rng, prompt_length, engine.base.vocab_size - 300)
        )
        sampling = SamplingParams(max_tokens=steps + 1, temperature=0.0, ignore_eos=True)
        engine.add_request(Request(f"step-{index}", prompt, sampling, specs))
    waiting = {f"step-{index}" for index in range(len(steering))}
    while waiting:
        waiting -= {output.request_id for output in _step(engine) if output.token_ids}
    # Sequences whose prompts were read first have drawn a token or two more, and end a step or two earlier. The time
    # is taken while all of them run.
    began, taken = time.perf_counter(), 0
    while engine.stats().running == len(steering):
        _step(engine)
        taken += 1
    seconds = (time.perf_counter() - began) / taken
    while engine.has_work:
        _step(engine)
    return seconds


def workload_seconds(engine: Engine, jobs: Sequence[Job], steering: tuple[SteeringSpec, ...]) -> float:
    """The seconds to serve all jobs, greedily. All of them wait at the start."""
    for index, job in enumerate(jobs):
        sampling = SamplingParams(max_tokens=job.tokens, temperature=0.0, ignore_eos=True)
        engine.add_request(Request(f"job-{index}", job.prompt, sampling, steering))
    began = time.perf_counter()
    while engine.has_work:
        _step(engine)
    return time.perf_counter() - began


def _step(engine: Engine) -> list[StepOutput]:
    outputs = engine.step()
    for output in outputs:
        if output.error is not None:
            raise RuntimeError(output.error)
    return outputs

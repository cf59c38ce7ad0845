"""A step reports its time by phase, and the requests that ran for the first time."""

from __future__ import annotations

import time

from steering.engine.request import Request, SamplingParams
from steering.engine.step_report import PHASES
from steering.specs import SteeringSpec
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop

BASE = Tiny("llama", "sp", seed=1)


def request(name: str, *steering: SteeringSpec) -> Request:
    return Request(name, tuple(range(5, 15)), SamplingParams(max_tokens=4, ignore_eos=True), steering)


def test_phases_sum_to_the_steps_time(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine = make_engine(BASE, workshop.adapter("tab", Tiny("gpt2", "bl", seed=31))[0])
    engine.add_request(request("a", SteeringSpec("tab")))
    elapsed = told = 0.0
    while engine.has_work:
        began = time.perf_counter()
        engine.step()
        elapsed += time.perf_counter() - began
        seconds = engine.last_step.seconds
        told += sum(seconds.values())
        assert set(seconds) == set(PHASES)
        assert all(spent > 0 for spent in seconds.values())
    assert 0.8 * elapsed <= told <= elapsed


def test_without_steering_no_time_goes_to_it(make_engine: MakeEngine) -> None:
    engine = make_engine(BASE)
    engine.add_request(request("a"))
    engine.step()
    assert engine.last_step.seconds["steering"] == 0
    assert engine.last_step.seconds["base"] > 0
    engine.abort("a")
    engine.step()
    assert sum(engine.last_step.seconds.values()) == 0


def test_a_wait_ends_once(make_engine: MakeEngine) -> None:
    # One at a time, and pages for hardly more than one: the rest wait, whatever is preempted.
    engine = make_engine(BASE, max_num_seqs=1)
    for name in "abc":
        engine.add_request(request(name))
    started: list[str] = []
    while engine.has_work:
        engine.step()
        assert len(engine.last_step.started) <= 1
        started.extend(engine.last_step.started)
    assert started == ["a", "b", "c"]

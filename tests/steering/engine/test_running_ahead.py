"""Running ahead: the base's next pass is queued before this step's tokens are read."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from steering.device.execution import Execution
from steering.engine.engine import Engine, EngineConfig
from steering.engine.outputs import StepOutput
from steering.engine.request import Request, SamplingParams
from steering.model.attention import AttentionPlan
from steering.specs import SteeringSpec
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, request, run
from tests.steering.tape import like_a_gpu

BASE = Tiny("llama", "sp")
PAGE = 4


class BasePasses:
    """Counts the rows of each of an engine's base passes."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        forward = engine._runner.forward

        def counting(rows: Any, device_tokens: Tensor | None = None) -> Tensor:
            self.rows.append(len(rows))
            return forward(rows, device_tokens)

        monkeypatch.setattr(engine._runner, "forward", counting)


def test_a_sequence_that_ends_by_itself_is_computed_once_in_vain(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(BASE, execution=Execution(runs_ahead=True))
    free = run(engine, [request("free", [5, 6, 7], count=6)])["free"].tokens
    passes = BasePasses(engine, monkeypatch)
    stop = SamplingParams(max_tokens=6, temperature=0, stop_token_ids=frozenset({free[3]}), ignore_eos=True)
    got = run(engine, [Request("stop", (5, 6, 7), stop)])["stop"]
    assert got.tokens == free[: free.index(free[3]) + 1]
    assert got.finish == "stop"
    assert passes.rows == [1] * (len(got.tokens) + 1)


def test_no_pass_is_wasted_where_the_end_is_known(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(BASE, execution=Execution(runs_ahead=True))
    passes = BasePasses(engine, monkeypatch)
    run(engine, [request("a", [5, 6, 7], count=3), request("b", [5, 6, 8], count=5)])
    assert passes.rows == [2, 2, 2, 1, 1]


def test_running_ahead_keeps_nobody_waiting(make_engine: MakeEngine) -> None:
    engine = make_engine(BASE, execution=Execution(runs_ahead=True), max_num_seqs=2)
    engine.add_request(request("a", [5, 6, 7], count=30))
    engine.step()
    for name in "bc":
        engine.add_request(request(name, [5, 6, 8], count=2))
    started = []
    for _ in range(8):
        engine.step()
        started.append(engine.last_step.started)
    # One step was queued when b arrived. c waits for b to end, and for the step that was queued by then.
    assert [place for place, names in enumerate(started) if names] == [1, 4]


def test_running_ahead_lets_a_prompt_be_read(make_engine: MakeEngine) -> None:
    engine = make_engine(BASE, execution=Execution(runs_ahead=True), max_num_seqs=2, max_step_tokens=8)
    engine.add_request(request("a", [5, 6, 7], count=40))
    engine.step()
    engine.add_request(request("b", [5, *range(5, 40)], count=2))
    steps = 0
    while not any(output.request_id == "b" for output in engine.step()):
        steps += 1
    # One step that was queued, then 36 prompt tokens, seven in each step beside one of a's.
    assert steps == 6


def test_an_abort_between_two_steps_takes_its_row_out(make_engine: MakeEngine) -> None:
    engine = make_engine(BASE, execution=like_a_gpu())
    alone = run(make_engine(BASE), [request("b", [5, 6, 8], count=8)])["b"]
    engine.add_request(request("a", [5, 6, 7], count=8))
    engine.add_request(request("b", [5, 6, 8], count=8))
    outputs: list[StepOutput] = []
    for _ in range(3):
        outputs += engine.step()
    engine.abort("a")
    # A new request with the same id is another request.
    engine.add_request(request("a", [9, 9, 9], count=2))
    while engine.has_work:
        outputs += engine.step()
    assert [t for o in outputs if o.request_id == "b" for t in o.token_ids] == alone.tokens
    fresh = run(make_engine(BASE), [request("a", [9, 9, 9], count=2)])["a"].tokens
    assert [t for o in outputs if o.request_id == "a" for t in o.token_ids][3:] == fresh


def test_nan_of_a_wasted_pass_reaches_no_other_sequence(workshop: Workshop) -> None:
    """The pass ahead may leave NaN in the page of a sequence that has ended, and the page goes to another sequence."""
    loaded = workshop.loaded(BASE)
    free = run(Engine(loaded, EngineConfig(page_size=PAGE)), [request("free", [5, 6, 7], count=6)])[
        "free"
    ].tokens
    poison = free[2]

    def forward(tokens: Tensor, positions: Tensor, wanted: Tensor, plan: AttentionPlan) -> Tensor:
        logits = loaded.forward(tokens, positions, wanted, plan)
        # As if the token's embedding were NaN, and with it the token's keys and values.
        for keys, values in plan.cache._layers.values():
            for pool in (keys, values):
                pool.view(-1, *pool.shape[2:])[plan.slots[tokens == poison]] = float("nan")
        return logits

    stop = SamplingParams(max_tokens=6, temperature=0, stop_token_ids=frozenset({poison}), ignore_eos=True)
    results = []
    for execution in (Execution(), Execution(runs_ahead=True)):
        one_row = EngineConfig(page_size=PAGE, max_num_seqs=1, kv_cache_memory=1, prefix_caching=False)
        pages = Engine(loaded, EngineConfig(page_size=PAGE))._runner.cache.bytes_per_page * 3
        engine = Engine(replace(loaded, forward=forward), replace(one_row, kv_cache_memory=pages), execution)
        first = run(engine, [Request("a", (5, 6, 7), stop)])["a"]
        assert first.finish == "stop"
        results.append(run(engine, [request("b", [9, 10, 11], count=5)])["b"])
    assert results[0].tokens == results[1].tokens
    assert results[0].finish == results[1].finish == "length"


def test_an_idle_engine_keeps_no_adapter(workshop: Workshop, make_engine: MakeEngine) -> None:
    adapter = workshop.adapter("same", Tiny("gpt2", "sp", seed=2))[0]
    engine = make_engine(BASE, execution=Execution(runs_ahead=True))
    steerer = engine.session.prepare(adapter)
    engine.session.install(steerer)
    tokens = run(engine, [request("a", [5, 6, 7], "same", count=6)])["a"].tokens
    stop = SamplingParams(max_tokens=6, temperature=0, stop_token_ids=frozenset({tokens[2]}), ignore_eos=True)
    run(engine, [Request("b", (5, 6, 7), stop, (SteeringSpec("same"),))])
    engine.session.detach("same")
    seen = weakref.ref(steerer)
    del steerer
    gc.collect()
    assert seen() is None

"""Law 9 inside the engine: one row's fault ends that row, and a fault of everything can be restarted from."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from steering.crossing.history import TextHistory
from steering.engine import drawing, sampler
from steering.engine.constraint import Constraint, ConstraintState
from steering.engine.engine import Engine
from steering.engine.request import Request
from steering.engine.sampler import SamplingRow
from steering.specs import SteeringSpec
from tests.steering.conftest import MakeEngine
from tests.steering.fault_injection import SCENARIOS, Campaign, Scenario
from tests.steering.support import Tiny, Workshop, assert_close, drain, request, run, run_alone, tokenizer_of

BASE, SAME, OTHER = Tiny("qwen2", "sp", seed=1), Tiny("llama", "sp", seed=5), Tiny("llama", "bl", seed=6)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return Campaign(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_faults_anywhere_end_only_their_own_rows(campaign: Campaign, scenario: Scenario) -> None:
    raised = sum(sum(campaign.run(scenario, seed, 0.006).raised.values()) for seed in range(4))
    assert raised >= 20


@pytest.mark.parametrize("adapter", ["same", "other"])
def test_a_row_that_always_raises_ends_alone(
    workshop: Workshop, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, adapter: str
) -> None:
    """A history that cannot take a character, as of a tokenizer that lacks it."""
    same, other = workshop.adapter("same", SAME)[0], workshop.adapter("other", OTHER)[0]
    encode = tokenizer_of("sp").encode
    requests = [
        request("victim", encode("The captain 🙂 told"), adapter),
        request("twin", encode("The captain told"), adapter),
        request("plain", encode("The captain told")),
        request("both", encode("Once"), "same", SteeringSpec("other", bridge="map")),
    ]
    alone = {one.request_id: run_alone(make_engine(BASE, same, other), one) for one in requests[1:]}
    engine = make_engine(BASE, same, other)
    for one in requests:
        engine.add_request(one)
    history = engine._sequences["victim"].row.states[0].window.history

    def fail(*_: Any) -> int:
        raise KeyError("no such character")

    monkeypatch.setattr(type(history), "push", _for(history, fail, type(history).push))
    results = drain(engine, {})
    assert results["victim"].finish == "error"
    for name, expected in alone.items():
        assert results[name].tokens == expected.tokens
        assert_close(results[name].logprobs, expected.logprobs)


def _for(victim: Any, special: Any, usual: Any) -> Any:
    return lambda self, *rest: special(*rest) if self is victim else usual(self, *rest)


def test_the_output_says_what_happened(
    workshop: Workshop, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(BASE, workshop.adapter("other", OTHER)[0])
    engine.add_request(request("victim", [5, 6, 7], "other"))

    def fail(*_: Any) -> int:
        raise KeyError("no such character")

    monkeypatch.setattr(TextHistory, "push", fail)
    (output,) = engine.step()
    assert (output.finish_reason, output.cause) == ("error", "fault")
    assert output.error == "KeyError: 'no such character'"


@pytest.mark.parametrize("error", [MemoryError("none left"), torch.OutOfMemoryError("none left")])
def test_after_a_fault_of_the_device_the_engine_starts_again(
    workshop: Workshop, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Requests are dropped; models and adapters stay, and the next request gets what it always got."""
    tab = workshop.adapter("other", OTHER)[0]
    engine = make_engine(BASE, tab)
    one = request("again", [5, 6, 7], "other")
    expected = run_alone(engine, one)
    for name in ("running", "waiting"):
        engine.add_request(request(name, [5, 6, 7], "other"))
    engine.step()
    unused: list[str] = []
    engine.session.detach("other", when_unused=lambda: unused.append("other"))

    def fail(*_: Any) -> int:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(TextHistory, "push", fail)
        with pytest.raises(type(error)):
            engine.step()
    assert not unused
    assert engine.restart() == ["running", "waiting"]
    assert unused == ["other"]
    assert not engine.has_work
    assert engine.stats().kv_pages_used == 0
    engine.session.attach(tab)
    assert run_alone(engine, one).tokens == expected.tokens


def test_a_listener_that_raises_ends_no_row(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine = make_engine(BASE, workshop.adapter("same", SAME)[0])
    engine.add_request(request("r", [5, 6, 7], "same", count=3))
    engine.step()

    def fail() -> None:
        raise RuntimeError("gone")

    engine.session.detach("same", when_unused=fail)
    assert drain(engine, {})["r"].finish == "length"
    assert run(engine, [request("next", [5, 6])])["next"].finish == "length"


def test_a_draw_that_raises_is_repeated_with_the_same_random_numbers(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request(str(seed), [5, 6, 7], temperature=1.0, seed=seed, logprobs=None) for seed in range(4)]
    expected = {one.request_id: run_alone(make_engine(BASE), one).tokens for one in requests}
    calls: list[int] = []

    def sometimes(scores: Any, rows: list[SamplingRow]) -> Any:
        calls.append(len(rows))
        if len(rows) == 4 and len(calls) % 2:
            raise RuntimeError("a batch that cannot be drawn")
        return sampler.sample(scores, rows)

    monkeypatch.setattr(drawing, "sample", sometimes)
    results = run(make_engine(BASE), requests)
    assert 1 in calls
    assert {name: result.tokens for name, result in results.items()} == expected


def test_no_request_is_forgotten_when_a_step_fails_behind_its_end(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that fails loses the last output of a request that ended in it. `restart` names that request too."""
    engine = make_engine(BASE)
    for name in ("first", "second"):
        engine.add_request(request(name, [5, 6, 7], count=1))
    commit = engine._commit

    def fail_second(builder: Any, row: int, sequence: Any) -> Any:
        if row == 1:
            raise MemoryError("none left")
        return commit(builder, row, sequence)

    monkeypatch.setattr(engine, "_commit", fail_second)
    engine.add_request(request("gone", [5]))
    engine.abort("gone")
    with pytest.raises(MemoryError):
        engine.step()
    assert sorted(engine.restart()) == ["first", "gone", "second"]
    monkeypatch.undo()
    assert run_alone(engine, request("next", [5, 6])).finish == "length"
    assert engine.restart() == []


def test_a_token_is_committed_once(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the end of one row raises, the draw is not repeated: the other rows have taken their tokens."""
    engine = make_engine(BASE)
    engine.add_request(request("goes on", [5, 6, 7]))
    engine.add_request(request("ends", [5, 6, 7], count=1))
    tokens = engine._sequences["goes on"].tokens

    def fail(_: Any) -> None:
        raise RuntimeError("it cannot be closed")

    with monkeypatch.context() as patch:
        patch.setattr(engine.session, "close", fail)
        with pytest.raises(KeyError):
            engine.step()
    assert len(tokens) == 4
    assert sorted(engine.restart()) == ["ends", "goes on"]


def test_a_request_that_cannot_start_holds_no_adapter(workshop: Workshop, make_engine: MakeEngine) -> None:
    class Unusable(Constraint):
        def __init__(self) -> None: ...

        def start(self) -> ConstraintState:
            raise RuntimeError("it cannot start")

    engine = make_engine(BASE, workshop.adapter("same", SAME)[0])
    with pytest.raises(RuntimeError, match="cannot start"):
        engine.add_request(Request("r", (5, 6), steering=(SteeringSpec("same"),), constraint=Unusable()))
    assert [rows for _, rows in engine.session.adapter_rows()] == [0]
    assert not engine.has_work


def test_an_engine_that_is_dropped_is_freed_at_once(workshop: Workshop) -> None:
    """Its pools are large, so they must not wait for the garbage collector."""
    engine = Engine(workshop.loaded(BASE))
    run_alone(engine, request("r", [5, 6]))
    cache = weakref.ref(engine._runner.cache)
    gc.collect()
    gc.disable()
    try:
        engine.restart()
        assert cache() is None
        cache = weakref.ref(engine._runner.cache)
        del engine
        assert cache() is None
    finally:
        gc.enable()

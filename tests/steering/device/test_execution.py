"""What an engine does on a GPU and not on a CPU: recorded passes, a base that runs ahead, a second stream."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steering.adapters import Adapter
from steering.device.execution import Execution, execution_on
from steering.device.side_stream import CudaSideStream
from steering.engine import outputs, sampler
from steering.engine.engine import Engine, EngineConfig
from steering.model.attention import AttentionPlan
from steering.model.kv_cache import KVCache
from steering.model.pages import PageAllocator
from steering.model.row_input import RowInput
from steering.model.runner import Runner
from steering.types import Request, SamplingParams, SteeringSpec, StepOutput
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, request, run, tokenizer_of
from tests.steering.tape import HostReads, TapeRecorder, like_a_gpu

BASE = Tiny("llama", "sp")
PAGE = 4


def kinds_of_steering(workshop: Workshop) -> list[Adapter]:
    cross = Tiny("qwen3", "bl", seed=3)
    return [
        workshop.adapter("same", Tiny("gpt2", "sp", seed=2))[0],
        workshop.adapter("map", cross, bridge="map")[0],
        workshop.adapter("rescore", cross, bridge="rescore")[0],
        workshop.adapter("proxy", cross, Tiny("qwen3", "bl", seed=4), bridge="map")[0],
    ]


def runner_of(workshop: Workshop, record: Any, pages: int = 32, *, growable: bool = False) -> Runner:
    return Runner(workshop.loaded(BASE), KVCache(PageAllocator(pages, PAGE, growable=growable)), record)


def passes(runner: Runner, length: int = 9) -> Iterator[Tensor]:
    """A prompt of four tokens, then one after another, two rows at a time, the second one a token ahead."""
    first, second = ([int(page) for page in runner.cache.allocator.allocate(4)] for _ in range(2))
    yield runner.forward([RowInput([5, 6, 7, 8], 0, first, 3), RowInput([8, 7, 6, 5, 4], 0, second, 0)])
    for position in range(4, length):
        tokens = [position % 11 + 3, position % 7 + 3]
        yield runner.forward(
            [RowInput(tokens[:1], position, first, 0), RowInput(tokens[1:], position + 1, second, 0)]
        )


def test_replays_give_what_the_passes_give(workshop: Workshop) -> None:
    recorder = TapeRecorder()
    plain, recorded = runner_of(workshop, None), runner_of(workshop, recorder)
    # A pool is made by the first pass; what is recorded comes after it.
    for runner in (plain, recorded):
        runner.forward([RowInput([1], 0, runner.cache.allocator.allocate(1), 0)])
    for expected, got in zip(passes(plain), passes(recorded), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    # Nine tokens at once, then two at a time: two sizes, each tried once when it was recorded.
    assert (recorder.recorded, recorder.replayed) == (2, 2 + 6)


def test_nothing_of_a_larger_batch_is_left_in_a_smaller_one(workshop: Workshop) -> None:
    """A recording has places for more rows than there are: they must not write to anybody's page."""
    runner = runner_of(workshop, TapeRecorder())
    pages = [runner.cache.allocator.allocate(1) for _ in range(8)]
    everybody = [RowInput([3 + number], 0, own, 0) for number, own in enumerate(pages)]
    for _ in range(2):
        runner.forward(everybody)
    kept = runner.forward(everybody)
    logits = kept.clone()
    # Three have ended, and their pages are somebody else's. The others go on in the recording of eight places.
    theirs = [page for own in pages[5:] for page in own]
    with torch.inference_mode():
        for pool in (pool for pair in runner.cache._layers.values() for pool in pair):
            pool[theirs] = 7.0
    runner.forward([replace(row, tokens=[20]) for row in everybody[:5]])
    assert all(bool((pool[theirs] == 7).all()) for pair in runner.cache._layers.values() for pool in pair)
    # And what a pass has given is not written over by the next.
    assert torch.equal(kept, logits)


@torch.inference_mode()
def test_what_fills_a_pass_up_is_in_no_page_of_a_larger_pool(workshop: Workshop) -> None:
    cache = runner_of(workshop, None, 2, growable=True).cache
    Runner(workshop.loaded(BASE), cache).forward([RowInput([1], 0, cache.allocator.allocate(1), 0)])
    for pair in cache._layers.values():
        for pool in pair:
            pool[cache.padding_page] = float("nan")
    fresh = cache.allocator.allocate(4)
    cache.make_room()
    assert all(bool((pool[fresh] == 0).all()) for pair in cache._layers.values() for pool in pair)


def test_a_pool_that_grows_is_recorded_anew(workshop: Workshop) -> None:
    recorder = TapeRecorder()
    plain, recorded = (
        runner_of(workshop, None, 2, growable=True),
        runner_of(workshop, recorder, 2, growable=True),
    )
    pages = {runner: runner.cache.allocator.allocate(1) for runner in (plain, recorded)}

    def step(position: int) -> None:
        results = [
            runner.forward([RowInput([position + 3], position, own, 0)]) for runner, own in pages.items()
        ]
        torch.testing.assert_close(*results)

    for position in range(3):
        step(position)
    assert recorder.recorded == 1
    for runner, own in pages.items():
        # Nothing but the allocator knows yet.
        own.extend(runner.cache.allocator.allocate(4))
    for position in range(3, 16):
        step(position)
    assert recorder.recorded == 2


def test_an_adapter_that_outgrows_its_pool(workshop: Workshop, make_engine: MakeEngine) -> None:
    """More pages than a steering model's pool begins with, in sizes that were recorded before."""
    adapter = workshop.adapter("same", Tiny("gpt2", "sp", seed=2))[0]
    requests = [request(str(number), [5 + number, *range(6, 30)], "same", count=12) for number in range(14)]
    results = [
        {name: result.tokens for name, result in run(engine, requests).items()}
        for engine in (
            make_engine(BASE, adapter, max_num_seqs=14),
            make_engine(BASE, adapter, max_num_seqs=14, execution=like_a_gpu()),
        )
    ]
    assert results[0] == results[1]


def wrong(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    return lambda: run() + 1


def refusing(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.mark.parametrize(("record", "reason"), [(wrong, "scores differ by 1"), (refusing, "not permitted")])
def test_what_cannot_be_recorded_runs_as_it_is_and_says_so_once(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, record: Any, reason: str
) -> None:
    plain, tried = runner_of(workshop, None), runner_of(workshop, record)
    for expected, got in zip(passes(plain), passes(tried), strict=True):
        torch.testing.assert_close(got, expected)
    assert [reason in entry.message for entry in caplog.records] == [True]


def test_where_memory_runs_out_what_was_recorded_stays(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = TapeRecorder()

    def short_of_memory(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if recorder.recorded:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return recorder(run)

    plain, tried = runner_of(workshop, None), runner_of(workshop, short_of_memory)

    def larger(runner: Runner) -> Tensor:
        return runner.forward([RowInput([5, 6, 7, 8, 9], 0, runner.cache.allocator.allocate(2), 0)])

    for _ in range(2):
        for expected, got in zip(passes(plain), passes(tried), strict=True):
            torch.testing.assert_close(got, expected)
        replayed = recorder.replayed
        torch.testing.assert_close(larger(tried), larger(plain))
        assert recorder.replayed == replayed
    assert recorder.recorded == 1
    assert replayed > 8
    assert ["no memory" in entry.message for entry in caplog.records] == [True]


def test_a_pass_that_reads_its_own_numbers_is_not_recorded(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = workshop.loaded(BASE)

    def reading(tokens: Tensor, positions: Tensor, wanted: Tensor, plan: Any) -> Tensor:
        logits = loaded.forward(tokens, positions, wanted, plan)
        return logits * float(logits.abs().max() > 0)

    recorder = TapeRecorder()
    runner = Runner(replace(loaded, forward=reading), KVCache(PageAllocator(32, PAGE)), recorder)
    for expected, got in zip(passes(runner_of(workshop, None)), passes(runner), strict=True):
        torch.testing.assert_close(got, expected)
    assert recorder.recorded == 0
    assert len(caplog.records) == 1


# Running ahead


class Counted:
    """Counts an engine's base passes and the tokens in them."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        forward = engine._runner.forward

        def counting(rows: Any, given: Tensor | None = None) -> Tensor:
            self.rows.append(len(rows))
            return forward(rows, given)

        monkeypatch.setattr(engine._runner, "forward", counting)


def test_a_sequence_that_ends_by_itself_is_computed_once_in_vain(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(BASE, execution=Execution(runs_ahead=True))
    free = run(engine, [request("free", [5, 6, 7], count=6)])["free"].tokens
    passes = Counted(engine, monkeypatch)
    stop = SamplingParams(max_tokens=6, temperature=0, stop_token_ids=frozenset({free[3]}), ignore_eos=True)
    got = run(engine, [Request("stop", (5, 6, 7), stop)])["stop"]
    assert got.tokens == free[: free.index(free[3]) + 1]
    assert got.finish == "stop"
    assert passes.rows == [1] * (len(got.tokens) + 1)


def test_nothing_is_computed_in_vain_where_the_end_is_known(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(BASE, execution=Execution(runs_ahead=True))
    passes = Counted(engine, monkeypatch)
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
    # One step was queued when b came. c waits for b's place, and for the step that was queued then.
    assert [place for place, names in enumerate(started) if names] == [1, 4]


def test_running_ahead_lets_a_prompt_be_read(make_engine: MakeEngine) -> None:
    engine = make_engine(BASE, execution=Execution(runs_ahead=True), max_num_seqs=2, max_step_tokens=8)
    engine.add_request(request("a", [5, 6, 7], count=40))
    engine.step()
    engine.add_request(request("b", [5, *range(5, 40)], count=2))
    steps = 0
    while not any(output.request_id == "b" for output in engine.step()):
        steps += 1
    # One step that was queued, then 36 tokens, seven beside each of a's.
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
    # A new one by the same name is another request.
    engine.add_request(request("a", [9, 9, 9], count=2))
    while engine.has_work:
        outputs += engine.step()
    assert [t for o in outputs if o.request_id == "b" for t in o.token_ids] == alone.tokens
    fresh = run(make_engine(BASE), [request("a", [9, 9, 9], count=2)])["a"].tokens
    assert [t for o in outputs if o.request_id == "a" for t in o.token_ids][3:] == fresh


def test_what_was_computed_in_vain_reaches_nobody(workshop: Workshop) -> None:
    """The pass ahead of a sequence that ends may be no number: its page goes to another one."""
    loaded = workshop.loaded(BASE)
    free = run(Engine(loaded, EngineConfig(page_size=PAGE)), [request("free", [5, 6, 7], count=6)])[
        "free"
    ].tokens
    poison = free[2]

    def forward(tokens: Tensor, positions: Tensor, wanted: Tensor, plan: AttentionPlan) -> Tensor:
        logits = loaded.forward(tokens, positions, wanted, plan)
        # As if the token's embedding were broken: its keys and values are no numbers.
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
    steerer = engine.prepare(adapter)
    engine.install(steerer)
    tokens = run(engine, [request("a", [5, 6, 7], "same", count=6)])["a"].tokens
    stop = SamplingParams(max_tokens=6, temperature=0, stop_token_ids=frozenset({tokens[2]}), ignore_eos=True)
    run(engine, [Request("b", (5, 6, 7), stop, (SteeringSpec("same"),))])
    engine.detach("same")
    seen = weakref.ref(steerer)
    del steerer
    gc.collect()
    assert seen() is None


arrivals = st.lists(
    st.tuples(
        st.integers(0, 6),  # the step before which it comes
        st.integers(1, 12),  # tokens of its prompt
        st.integers(1, 9),  # tokens asked for
        st.sampled_from([None, "same", "map", "rescore"]),
        st.booleans(),  # sampled, not greedy
        st.sampled_from([None, 1, 3]),  # aborted after so many steps
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(arrivals=arrivals, pages=st.sampled_from([12, 400]))
def test_any_traffic_gets_the_same_tokens_either_way(
    workshop: Workshop, arrivals: list[Any], pages: int
) -> None:
    """Late arrivals, aborts, preemption, sampling: a GPU's way of running changes no reply."""
    adapters = kinds_of_steering(workshop)
    plain, other = (
        _traffic(workshop, execution, adapters, arrivals, pages) for execution in (Execution(), like_a_gpu())
    )
    for name, (tokens, finish) in plain.items():
        got, how = other[name]
        # Who is aborted may be a step further or not: what it has is the same.
        common = min(len(tokens), len(got)) if "abort" in (finish, how) else max(len(tokens), len(got))
        assert got[:common] == tokens[:common]
        assert how == finish or "abort" in (finish, how)


def _traffic(
    workshop: Workshop, execution: Execution, adapters: list[Adapter], arrivals: list[Any], pages: int
) -> dict[str, tuple[list[int], str | None]]:
    loaded = workshop.loaded(BASE)
    size = Engine(loaded, EngineConfig(page_size=PAGE))._runner.cache.bytes_per_page
    engine = Engine(
        loaded, EngineConfig(page_size=PAGE, max_num_seqs=4, kv_cache_memory=size * pages), execution
    )
    for adapter in adapters:
        engine.attach(adapter)
    found: dict[str, tuple[list[int], str | None]] = {}
    aborts: dict[str, int] = {}
    for step in range(200):
        for number, (when, length, count, adapter, sampled, abort) in enumerate(arrivals):
            if when != step:
                continue
            prompt = tokenizer_of("sp").encode("The ferry left the harbour at nine")[:length]
            params = SamplingParams(max_tokens=count, temperature=float(sampled), seed=number)
            engine.add_request(
                replace(request(str(number), prompt, *([adapter] if adapter else [])), sampling=params)
            )
            found[str(number)] = ([], None)
            if abort is not None:
                aborts[str(number)] = step + abort
        for name in [name for name, when in aborts.items() if when == step]:
            engine.abort(name)
        for output in engine.step():
            tokens, _ = found[output.request_id]
            found[output.request_id] = (tokens + list(output.token_ids), output.finish_reason)
        if step > 6 and not engine.has_work:
            break
    engine.check_integrity()
    assert not engine.has_work
    assert engine.stats().kv_pages_used == 0
    return found


# The host


@pytest.mark.parametrize(
    ("adapter", "reads"), [(None, 1), ("same", 1), ("map", 1), ("proxy", 1), ("rescore", 3)]
)
@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 5},
        {"logprobs": 3},
    ],
)
def test_a_decode_step_waits_for_the_device_once(
    workshop: Workshop,
    make_engine: MakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    adapter: str | None,
    reads: int,
    sampling: dict[str, Any],
) -> None:
    """For the tokens; `rescore` waits for its candidates and for what its trials say of them, too."""
    for module in (sampler, outputs):
        # On a CPU it is numpy's.
        monkeypatch.setattr(module, "best", lambda scores: scores.argmax(-1))
    engine = make_engine(BASE, *kinds_of_steering(workshop), execution=like_a_gpu(), page_size=32)
    for number in range(3):
        prompt = tokenizer_of("sp").encode("The ferry left the harbour")[number:]
        one = request(str(number), prompt, *([adapter] if adapter else []), count=8)
        engine.add_request(replace(one, sampling=replace(one.sampling, **({"logprobs": None} | sampling))))
    least = []
    for _ in range(7):
        with HostReads() as counted:
            engine.step()
        least.append(counted.names)
    # Recording a size that is new waits, too, and `rescore` meets many: the most frugal step has met no new one.
    assert len(min(least, key=len)) == reads, least


# The second stream


class Stream:
    """Notes what is queued on it and what it waits for."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} waits for all of {other.name}")

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")

    def record_event(self) -> str:
        self.log.append(f"{self.name} marks")
        return "the mark"


def test_only_the_first_work_of_a_step_runs_beside_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    main, side = Stream("main", log), Stream("side", log)

    @contextmanager
    def entered(stream: Stream) -> Iterator[None]:
        log.append(f"on {stream.name}")
        yield
        log.append(f"off {stream.name}")

    cuda = SimpleNamespace(Stream=lambda device: side, current_stream=lambda device: main, stream=entered)
    monkeypatch.setattr(torch, "cuda", cuda)
    stream = CudaSideStream(torch.device("cuda"))
    stream.allow_overlap()
    for _ in range(2):
        with stream.overlapped():
            pass
    stream.allow_overlap()
    stream.forbid_overlap()
    with stream.overlapped():
        pass
    within = ["on side", "off side", "main waits for all of side"]
    assert log == [
        *("main marks", "side waits for the mark", *within),
        *("side waits for all of main", *within),
        *("main marks", "side waits for all of main", *within),
    ]


def test_a_device_chooses_how_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for device, eager in (("cpu", False), ("cuda", True)):
        plain = execution_on(torch.device(device), eager=eager)
        assert not plain.runs_ahead and plain.capture_base is plain.capture_steering is None
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    chosen = execution_on(torch.device("cuda"))
    assert chosen.runs_ahead and isinstance(chosen.side, CudaSideStream)
    # Base and steering models replay at the same time.
    assert chosen.capture_base is not None and chosen.capture_base is not chosen.capture_steering

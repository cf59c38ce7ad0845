"""Captured passes give what the passes themselves give, and never write to another row's pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from steering.model.kv_cache import KVCache
from steering.model.pages import PageAllocator
from steering.model.row_input import RowInput
from steering.model.runner import Runner
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, request, run
from tests.steering.tape import TapeCapture, like_a_gpu

BASE = Tiny("llama", "sp")
PAGE = 4


def runner_of(workshop: Workshop, capture: Any, pages: int = 32, *, growable: bool = False) -> Runner:
    return Runner(workshop.loaded(BASE), KVCache(PageAllocator(pages, PAGE, growable=growable)), capture)


def passes(runner: Runner, length: int = 9) -> Iterator[Tensor]:
    """Two rows: their prompts of four and five tokens in one pass, then a pass for each further pair of tokens."""
    first, second = ([int(page) for page in runner.cache.allocator.allocate(4)] for _ in range(2))
    yield runner.forward([RowInput([5, 6, 7, 8], 0, first, 3), RowInput([8, 7, 6, 5, 4], 0, second, 0)])
    for position in range(4, length):
        tokens = [position % 11 + 3, position % 7 + 3]
        yield runner.forward(
            [RowInput(tokens[:1], position, first, 0), RowInput(tokens[1:], position + 1, second, 0)]
        )


def test_replays_give_what_the_passes_give(workshop: Workshop) -> None:
    capture = TapeCapture()
    plain, captured = runner_of(workshop, None), runner_of(workshop, capture)
    # The first pass creates the pool and is not captured.
    for runner in (plain, captured):
        runner.forward([RowInput([1], 0, runner.cache.allocator.allocate(1), 0)])
    for expected, got in zip(passes(plain), passes(captured), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    # Nine tokens in one pass, then two in each: two sizes, each replayed once as a check when it was captured.
    assert (capture.captured, capture.replayed) == (2, 2 + 6)


def test_nothing_of_a_larger_batch_is_left_in_a_smaller_one(workshop: Workshop) -> None:
    """A captured pass may have more tokens than the batch: the padding must not write to any row's page."""
    runner = runner_of(workshop, TapeCapture())
    pages = [runner.cache.allocator.allocate(1) for _ in range(8)]
    everyone = [RowInput([3 + number], 0, own, 0) for number, own in enumerate(pages)]
    for _ in range(2):
        runner.forward(everyone)
    kept = runner.forward(everyone)
    logits = kept.clone()
    # Three rows have ended, and other rows hold their pages. Five continue in the captured pass of eight tokens.
    reused = [page for own in pages[5:] for page in own]
    with torch.inference_mode():
        for pool in (pool for pair in runner.cache._layers.values() for pool in pair):
            pool[reused] = 7.0
    runner.forward([replace(row, tokens=[20]) for row in everyone[:5]])
    assert all(bool((pool[reused] == 7).all()) for pair in runner.cache._layers.values() for pool in pair)
    # The next pass does not overwrite the logits of an earlier one.
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
    capture = TapeCapture()
    plain, captured = (
        runner_of(workshop, None, 2, growable=True),
        runner_of(workshop, capture, 2, growable=True),
    )
    pages = {runner: runner.cache.allocator.allocate(1) for runner in (plain, captured)}

    def step(position: int) -> None:
        results = [
            runner.forward([RowInput([position + 3], position, own, 0)]) for runner, own in pages.items()
        ]
        torch.testing.assert_close(*results)

    for position in range(3):
        step(position)
    assert capture.captured == 1
    for runner, own in pages.items():
        # Only the allocator has grown; the pool follows at the next pass.
        own.extend(runner.cache.allocator.allocate(4))
    for position in range(3, 16):
        step(position)
    assert capture.captured == 2


def test_an_adapter_that_outgrows_its_pool(workshop: Workshop, make_engine: MakeEngine) -> None:
    """Steering needs more pages than the pool of its model begins with, in sizes that were captured before."""
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


@pytest.mark.parametrize(("capture", "reason"), [(wrong, "scores differ by 1"), (refusing, "not permitted")])
def test_what_cannot_be_recorded_runs_as_it_is_and_says_so_once(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, capture: Any, reason: str
) -> None:
    plain, tried = runner_of(workshop, None), runner_of(workshop, capture)
    for expected, got in zip(passes(plain), passes(tried), strict=True):
        torch.testing.assert_close(got, expected)
    assert [reason in entry.message for entry in caplog.records] == [True]


def test_where_memory_runs_out_what_was_recorded_stays(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    capture = TapeCapture()

    def short_of_memory(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if capture.captured:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return capture(run)

    plain, tried = runner_of(workshop, None), runner_of(workshop, short_of_memory)

    def larger(runner: Runner) -> Tensor:
        return runner.forward([RowInput([5, 6, 7, 8, 9], 0, runner.cache.allocator.allocate(2), 0)])

    for _ in range(2):
        for expected, got in zip(passes(plain), passes(tried), strict=True):
            torch.testing.assert_close(got, expected)
        replayed = capture.replayed
        torch.testing.assert_close(larger(tried), larger(plain))
        assert capture.replayed == replayed
    assert capture.captured == 1
    assert replayed > 8
    assert ["no memory" in entry.message for entry in caplog.records] == [True]


def test_a_pass_that_reads_its_own_numbers_is_not_recorded(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = workshop.loaded(BASE)

    def reading(tokens: Tensor, positions: Tensor, wanted: Tensor, plan: Any) -> Tensor:
        logits = loaded.forward(tokens, positions, wanted, plan)
        return logits * float(logits.abs().max() > 0)

    capture = TapeCapture()
    runner = Runner(replace(loaded, forward=reading), KVCache(PageAllocator(32, PAGE)), capture)
    for expected, got in zip(passes(runner_of(workshop, None)), passes(runner), strict=True):
        torch.testing.assert_close(got, expected)
    assert capture.captured == 0
    assert len(caplog.records) == 1

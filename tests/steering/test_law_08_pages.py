"""Law 8: no page leaks, whatever is aborted or preempted."""

from __future__ import annotations

import pytest

from steering.engine.request import Request
from steering.specs import SteeringSpec
from tests.steering.conftest import MakeEngine
from tests.steering.laws import BASE, PAGE_BYTES, PROMPT, attached
from tests.steering.support import (
    Result,
    Workshop,
    assert_close,
    drain,
    request,
    run,
    run_alone,
    tokenizer_of,
)


def many(count: int = 8) -> list[Request]:
    texts = [
        "Once upon a time",
        "He wrote three books about rivers, two",
        "A naïve 世",
        "In winter",
        "It's 5",
    ]
    prompts = [
        tokenizer_of("sp").encode(texts[i % len(texts)] + " and" * (i // len(texts))) for i in range(count)
    ]
    ways: list[tuple[SteeringSpec, ...]] = [
        (),
        (SteeringSpec("tab"),),
        (SteeringSpec("tab", bridge="map"),),
        (SteeringSpec("own"), SteeringSpec("tab", alpha=0.3)),
    ]
    return [request(str(i), p, *ways[i % 4], count=14 + i % 3) for i, p in enumerate(prompts)]


def test_law_08_preemption_changes_no_token(workshop: Workshop, make_engine: MakeEngine) -> None:
    expected = run(make_engine(BASE, *attached(workshop)), many())
    tight = make_engine(BASE, *attached(workshop), kv_cache_memory=16 * PAGE_BYTES, max_model_len=60)
    assert tight.stats().kv_pages_total == 16
    results = run(tight, many())
    assert tight.stats().preemptions > 0
    tight.check_integrity()
    assert tight.stats().kv_pages_used == 0
    for name, result in results.items():
        assert result.tokens == expected[name].tokens
        assert len(result.entries) == len(result.tokens)
        assert_close(result.logprobs, expected[name].logprobs)


def test_law_08_preempted_scoring_is_reported_once(workshop: Workshop, make_engine: MakeEngine) -> None:
    requests = [request(str(i), PROMPT[: 20 - i], "own", count=9, prompt_logprobs=0) for i in range(4)]
    expected = run(make_engine(BASE, *attached(workshop)), requests)
    tight = make_engine(
        BASE, *attached(workshop), kv_cache_memory=12 * PAGE_BYTES, max_step_tokens=5, max_num_seqs=4
    )
    results = run(tight, requests)
    for one in requests:
        got, want = results[one.request_id], expected[one.request_id]
        assert got.tokens == want.tokens
        assert got.prompt is not None and want.prompt is not None
        assert len(got.prompt) == len(one.prompt_ids)
        assert_close(
            [entry.logprob for entry in got.prompt[1:] if entry],
            [entry.logprob for entry in want.prompt[1:] if entry],
        )


@pytest.mark.parametrize(
    "config", [{}, {"max_num_seqs": 3, "max_step_tokens": 5}, {"kv_cache_memory": 16 * PAGE_BYTES}]
)
def test_law_08_aborts_free_every_page(
    workshop: Workshop, make_engine: MakeEngine, config: dict[str, int]
) -> None:
    """Requests are aborted while they wait, prefill and decode; the rest get what they get alone."""
    expected = run(make_engine(BASE, *attached(workshop)), many())
    engine = make_engine(BASE, *attached(workshop), **config)
    for one in many():
        engine.add_request(one)
    results: dict[str, Result] = {}
    assert engine.abort("7")
    for victim in ("0", "1", "2", "5"):
        for output in engine.step():
            results.setdefault(output.request_id, Result()).take(output)
        engine.check_integrity()
        finished = results.get(victim, Result()).finish is not None
        assert engine.abort(victim) is not finished
        assert not engine.abort(victim)
        engine.check_integrity()
    drain(engine, results)
    engine.check_integrity()
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.kv_pages_used) == (0, 0, 0)
    assert not engine.abort("never")
    for name in ("3", "4", "6"):
        assert results[name].tokens == expected[name].tokens
    for name in ("0", "1", "2", "5", "7"):
        assert results[name].finish == "abort"
        assert results[name].tokens == expected[name].tokens[: len(results[name].tokens)]


def test_law_08_a_prompt_that_fills_the_pool_still_ends(workshop: Workshop, make_engine: MakeEngine) -> None:
    """Scoring needs no room for a next token, so a text as long as the pool must neither fail nor wait for ever."""
    engine = make_engine(BASE, kv_cache_memory=5 * PAGE_BYTES)
    assert engine.max_model_len == 20
    got = run_alone(engine, request("r", (PROMPT * 2)[:20], count=0, prompt_logprobs=0))
    assert got.prompt is not None
    assert len(got.prompt) == 20
    full = run_alone(engine, request("g", (PROMPT * 2)[:19], count=50))
    assert len(full.tokens) == 1
    assert full.finish == "length"


def test_law_08_the_longest_text_ends_with_length(workshop: Workshop, make_engine: MakeEngine) -> None:
    """Steered up to the limit of the model, whose steering models see no further than that either."""
    engine = make_engine(BASE, *attached(workshop), max_model_len=24)
    for specs in ((), ("tab",), ("own",)):
        got = run_alone(engine, request("r", PROMPT[:10], *specs, count=100))
        assert len(got.tokens) == 14
        assert got.finish == "length"

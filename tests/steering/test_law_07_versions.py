"""Law 7: a request keeps its adapters' versions, and shares prefixes with the right ones only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steering.errors import InvalidRequestError
from tests.steering.conftest import MakeEngine
from tests.steering.laws import BASE, PROMPT, two_versions
from tests.steering.support import (
    Result,
    Tiny,
    Workshop,
    assert_close,
    drain,
    request,
    run,
    run_alone,
    tokenizer_of,
)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_law_07_a_request_keeps_the_version_it_was_admitted_with(
    workshop: Workshop, make_engine: MakeEngine, steps: int
) -> None:
    old, new = two_versions(workshop)
    assert old.version != new.version
    expected = [run_alone(make_engine(BASE, v), request("r", PROMPT, "tab", count=12)) for v in (old, new)]
    assert expected[0].tokens != expected[1].tokens
    engine = make_engine(BASE, old)
    before, after = request("before", PROMPT, "tab", count=12), request("after", PROMPT, "tab", count=12)
    assert engine.add_request(before)[0].version == old.version
    results: dict[str, Result] = {}
    for _ in range(steps):
        for output in engine.step():
            results.setdefault(output.request_id, Result()).take(output)
    engine.session.attach(new)
    assert engine.session.adapters()["tab"].version == new.version
    assert engine.add_request(after)[0].version == new.version
    drain(engine, results)
    assert results["before"].tokens == expected[0].tokens
    assert results["after"].tokens == expected[1].tokens
    assert_close(results["before"].logprobs, expected[0].logprobs)


def test_law_07_detaching_changes_nothing_for_what_runs(workshop: Workshop, make_engine: MakeEngine) -> None:
    old, _ = two_versions(workshop)
    expected = run_alone(make_engine(BASE, old), request("r", PROMPT, "tab", count=12))
    engine = make_engine(BASE, old, max_num_seqs=1)
    engine.add_request(request("running", PROMPT, "tab", count=12))
    engine.add_request(request("waiting", PROMPT, "tab", count=12))
    results: dict[str, Result] = {}
    for output in engine.step():
        results.setdefault(output.request_id, Result()).take(output)
    engine.session.detach("tab")
    assert engine.session.adapters() == {}
    with pytest.raises(InvalidRequestError):
        engine.add_request(request("late", PROMPT, "tab"))
    with pytest.raises(KeyError):
        engine.session.detach("tab")
    drain(engine, results)
    assert results["running"].tokens == results["waiting"].tokens == expected.tokens


def test_law_07_prefixes_are_shared_whatever_steers(workshop: Workshop, make_engine: MakeEngine) -> None:
    old, new = two_versions(workshop)
    fresh = make_engine(BASE, new, prefix_caching=False)
    expected = run_alone(fresh, request("r", PROMPT, "tab"))
    plain = run_alone(fresh, request("p", PROMPT))
    engine = make_engine(BASE, old)
    run_alone(engine, request("first", PROMPT, "tab"))
    assert engine.stats().prefix_cache_hits == 0
    engine.session.attach(new)
    assert run_alone(engine, request("second", PROMPT, "tab")).tokens == expected.tokens
    hits = engine.stats().prefix_cache_hits
    assert hits > 0
    assert run_alone(engine, request("third", PROMPT)).tokens == plain.tokens
    assert engine.stats().prefix_cache_hits > hits
    assert engine.stats().prefix_cache_hits <= engine.stats().prefix_cache_queries


@pytest.mark.parametrize("shared_vocabulary", [True, False])
def test_law_07_a_steering_model_reads_a_shared_beginning_once(
    workshop: Workshop, make_engine: MakeEngine, shared_vocabulary: bool
) -> None:
    tab = workshop.adapter("tab", Tiny("llama", "sp" if shared_vocabulary else "bl", seed=31))[0]
    encode = tokenizer_of("sp").encode
    start = "The captain told nobody that the bridge was closed and the ferry had left the harbour"
    requests = [
        request(name, encode(start + end), "tab", count=10)
        for name, end in (
            ("first", " at nine"),
            ("second", ", she said, with the gulls"),
            ("third", " at nine"),
        )
    ]
    expected = [run_alone(make_engine(BASE, tab, prefix_caching=False), one) for one in requests]
    engine = make_engine(BASE, tab)
    found = [run_alone(engine, one) for one in requests]
    for got, alone in zip(found, expected, strict=True):
        assert got.tokens == alone.tokens
        assert_close(got.logprobs, alone.logprobs)
    hits = next(iter(engine.session._registry.current().values())).runners[0].cache.allocator.prefix_hits
    assert hits >= 2 * 8, "two full pages at least were read by somebody else before"
    together = run(engine, [replace(one, request_id=f"{one.request_id}-again") for one in requests])
    for one, alone in zip(requests, expected, strict=True):
        assert together[f"{one.request_id}-again"].tokens == alone.tokens
    engine.check_integrity()

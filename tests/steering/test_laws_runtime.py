"""The laws on what happens while requests run: versions (7), pages (8) and what a client can get wrong (9)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from steering.adapters import Adapter, load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.engine.request import Request, SamplingParams
from steering.errors import InvalidRequestError
from steering.model.loading import load_model
from steering.specs import SteeringSpec
from tests.steering.conftest import MakeEngine
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

BASE = Tiny("llama", "sp")
PROMPT = tuple(tokenizer_of("sp").encode("The captain told nobody that the bridge was closed"))
# Pages of four tokens: 2 layers, keys and values, 2 heads of 8 numbers of 4 bytes.
PAGE_BYTES = 4 * 2 * 2 * 2 * 8 * 4


def two_versions(workshop: Workshop) -> tuple[Adapter, Adapter]:
    return (
        workshop.adapter("tab", Tiny("gpt2", "bl", seed=31))[0],
        workshop.adapter("tab", Tiny("gpt2", "bl", seed=32))[0],
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


def attached(workshop: Workshop) -> tuple[Adapter, Adapter]:
    return two_versions(workshop)[0], workshop.adapter("own", Tiny("mistral", "sp", seed=33))[0]


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


WRONG_SAMPLING: list[tuple[str, Any]] = [
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("min_tokens", -1),
    ("temperature", -0.1),
    ("temperature", 1e-39),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_p", math.nan),
    ("top_k", -1),
    ("min_p", -0.1),
    ("min_p", 1.5),
    ("presence_penalty", math.inf),
    ("frequency_penalty", math.nan),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", math.inf),
    ("logit_bias", ((10**6, 1.0),)),
    ("logit_bias", ((-1, 1.0),)),
    ("logit_bias", ((3, math.nan),)),
    ("stop_token_ids", frozenset({10**6})),
    ("logprobs", -1),
    ("prompt_logprobs", -1),
]
WRONG_STEERING: list[tuple[str, SteeringSpec]] = [
    ("steering", SteeringSpec("nobody")),
    ("steering.alpha", SteeringSpec("tab", alpha=math.nan)),
    ("steering.alpha", SteeringSpec("tab", alpha=math.inf)),
    ("steering.alpha", SteeringSpec("tab", alpha=3e38)),
    ("steering.top_k", SteeringSpec("tab", top_k=0)),
    ("steering.bridge", SteeringSpec("tab", bridge="tunnel")),
]
WRONG_PROMPTS = [(), (-1,), (10**6,), (480,), (5,) * 1000]


def test_law_09_what_cannot_be_served_is_refused_and_disturbs_nothing(
    workshop: Workshop, make_engine: MakeEngine
) -> None:
    expected = run_alone(make_engine(BASE, *attached(workshop)), request("r", PROMPT, "tab", count=40))
    engine = make_engine(BASE, *attached(workshop))
    wrong: list[tuple[str, Request]] = [("prompt", request("w", prompt)) for prompt in WRONG_PROMPTS]
    wrong += [
        (field, Request("w", PROMPT, SamplingParams(**{field: value}))) for field, value in WRONG_SAMPLING
    ]
    wrong += [(field, request("w", PROMPT, spec)) for field, spec in WRONG_STEERING]
    wrong.append(("request_id", request("r", PROMPT)))
    engine.add_request(request("r", PROMPT, "tab", count=40))
    results: dict[str, Result] = {}
    for param, one in wrong:
        with pytest.raises(InvalidRequestError) as caught:
            engine.add_request(one)
        assert caught.value.param == param
        assert param.split(".")[0] in str(caught.value) or param == "request_id"
        for output in engine.step():
            results.setdefault(output.request_id, Result()).take(output)
    drain(engine, results)
    assert list(results) == ["r"]
    assert results["r"].tokens == expected.tokens


BROKEN = "ßß"


@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("kind", ["sp", "bl"])
@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 1.0, "seed": 1},
        {"temperature": 1.0, "top_p": 0.9},
        {"prompt_logprobs": 1},
    ],
)
def test_law_09_one_row_with_broken_scores_ends_alone(
    workshop: Workshop, prefix_caching: bool, kind: str, sampling: dict[str, Any]
) -> None:
    """What a token that is not finite leaves in the pages reaches nobody: not in its batch, and not after it."""
    base = load_model(workshop.folder(BASE), device="cpu", dtype="float32")
    tab = load_adapter("tab", workshop.folder(Tiny("llama", kind, seed=31)), device="cpu", dtype="float32")
    for model in (base, tab.models[0]):
        ids = model.tokenizer.encode(BROKEN, add_special_tokens=False)
        weight = model.model.get_input_embeddings().weight  # type: ignore[operator]
        weight.data[ids[-1]] = math.nan
    engine = Engine(base, EngineConfig(page_size=4, max_num_seqs=8, prefix_caching=prefix_caching))
    engine.session.attach(tab)
    # Not rescored: a candidate's text may have the broken token in it, whose ever it is.
    steering = SteeringSpec("tab", bridge="map")
    healthy = [
        request(name, PROMPT[:size], steering, count=9) for name, size in (("a", 3), ("b", 7), ("c", 11))
    ]
    expected = run(engine, healthy)
    assert all(result.finish == "length" for result in expected.values())
    poison = (*PROMPT[:5], *base.tokenizer.encode(BROKEN, add_special_tokens=False), *PROMPT[:3])
    for _ in range(2):
        found = run(engine, [request("broken", poison, steering, count=4, **sampling), *healthy])
        assert found["broken"].finish == "error"
        for one in healthy:
            assert found[one.request_id].finish == "length"
            assert found[one.request_id].tokens == expected[one.request_id].tokens
    engine.check_integrity()


def test_the_strongest_shift_has_a_finite_divergence(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine = make_engine(BASE, *attached(workshop))
    for alpha in (100.0, -100.0):
        found = run_alone(
            engine, request("r", PROMPT, SteeringSpec("tab", alpha=alpha, bridge="map"), count=3)
        )
        assert found.finish == "length" and 0 < found.kl < math.inf

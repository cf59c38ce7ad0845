"""Law 9: a client's mistakes are refused, and one row's fault never ends another row."""

from __future__ import annotations

import math
from typing import Any

import pytest

from steering.adapters import load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.engine.request import Request, SamplingParams
from steering.errors import InvalidRequestError
from steering.model.loading import load_model
from steering.session import steering_pass
from steering.specs import SteeringSpec
from steering.steerers.history_kv import HistoryKV
from tests.steering.conftest import MakeEngine
from tests.steering.laws import BASE, PAGE_BYTES, PROMPT, attached
from tests.steering.support import (
    Result,
    Tiny,
    Workshop,
    drain,
    request,
    run,
    run_alone,
)

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
# Not rescored: the text of a healthy row's candidate may have the broken token in it.
STEERING = SteeringSpec("tab", bridge="map")
HEALTHY = [request(name, PROMPT[:size], STEERING, count=9) for name, size in (("a", 3), ("b", 7), ("c", 11))]


def engine_with_a_broken_token(workshop: Workshop, kind: str, **limits: Any) -> tuple[Engine, list[int]]:
    """An engine whose base and adapter give NaN from one token on, and the base's tokens of the text with it."""
    base = load_model(workshop.folder(BASE), device="cpu", dtype="float32")
    tab = load_adapter("tab", workshop.folder(Tiny("llama", kind, seed=31)), device="cpu", dtype="float32")
    for model in (base, tab.models[0]):
        ids = model.tokenizer.encode(BROKEN, add_special_tokens=False)
        weight = model.model.get_input_embeddings().weight  # type: ignore[operator]
        weight.data[ids[-1]] = math.nan
    engine = Engine(base, EngineConfig(**({"page_size": 4, "max_num_seqs": 8} | limits)))
    engine.session.attach(tab)
    return engine, base.tokenizer.encode(BROKEN, add_special_tokens=False)


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
    """NaN in a row's pages reaches nobody: not in its batch, and not after it."""
    engine, broken = engine_with_a_broken_token(workshop, kind, prefix_caching=prefix_caching)
    expected = run(engine, HEALTHY)
    assert all(result.finish == "length" for result in expected.values())
    poison = (*PROMPT[:5], *broken, *PROMPT[:3])
    for _ in range(2):
        found = run(engine, [request("broken", poison, STEERING, count=4, **sampling), *HEALTHY])
        assert found["broken"].finish == "error"
        for one in HEALTHY:
            assert found[one.request_id].finish == "length"
            assert found[one.request_id].tokens == expected[one.request_id].tokens
    engine.check_integrity()


@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("kind", ["sp", "bl"])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("sampling", [{}, {"prompt_logprobs": 1}])
def test_law_09_a_broken_row_that_is_aborted_leaves_nothing_behind(
    workshop: Workshop, prefix_caching: bool, kind: str, steps: int, sampling: dict[str, Any]
) -> None:
    """It is aborted while its prompt is read, before a step has seen that its scores are not finite."""
    limits = {"kv_cache_memory": 24 * PAGE_BYTES, "max_step_tokens": 9, "prefix_caching": prefix_caching}
    engine, broken = engine_with_a_broken_token(workshop, kind, **limits)
    expected = run(engine, HEALTHY)
    poison = (*PROMPT[:2], *broken, *PROMPT, *PROMPT)
    engine.add_request(request("broken", poison, STEERING, **sampling))
    for _ in range(steps):
        assert not any(output.finish_reason for output in engine.step())
    engine.abort("broken")
    engine.step()
    found = run(engine, HEALTHY)
    for name, result in found.items():
        assert result.tokens == expected[name].tokens


@pytest.mark.parametrize("kind", ["sp", "bl"])
def test_law_09_a_broken_row_that_is_preempted_leaves_nothing_behind(workshop: Workshop, kind: str) -> None:
    """The older row takes the younger one's pages while the prompt of the younger one is being read."""
    limits = {"kv_cache_memory": 10 * PAGE_BYTES, "max_step_tokens": 3, "prefix_caching": False}
    engine, broken = engine_with_a_broken_token(workshop, kind, max_num_seqs=2, **limits)
    old = request("old", PROMPT[:8], STEERING, count=20)
    expected = run_alone(engine, old)
    poison = (broken[-1], *PROMPT, *PROMPT)[:24]
    engine.add_request(old)
    results: dict[str, Result] = {}
    for _ in range(9):
        for output in engine.step():
            results.setdefault(output.request_id, Result()).take(output)
    engine.add_request(request("broken", poison, STEERING))
    drain(engine, results)
    assert engine.stats().preemptions > 0
    assert results["broken"].finish == "error"
    assert results["old"].tokens == expected.tokens


@pytest.mark.parametrize("kind", ["sp", "bl"])
@pytest.mark.parametrize("sampling", [{}, {"prompt_logprobs": 1}])
@pytest.mark.parametrize("place", [(HistoryKV, "cache_settled"), (steering_pass, "add_shift")])
def test_law_09_a_broken_row_whose_part_raises_leaves_nothing_behind(
    workshop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    sampling: dict[str, Any],
    place: tuple[Any, str],
) -> None:
    """The steering model has written NaN when an error ends the row."""
    engine, broken = engine_with_a_broken_token(workshop, kind, prefix_caching=False)
    expected = run(engine, HEALTHY)

    def fail(*_: Any) -> None:
        raise RuntimeError("behind the pass")

    with monkeypatch.context() as patch:
        patch.setattr(*place, fail)
        poison = request("broken", (*broken, *PROMPT[:3]), STEERING, **sampling)
        assert run_alone(engine, poison).finish == "error"
    found = run(engine, HEALTHY)
    for name, result in found.items():
        assert result.tokens == expected[name].tokens


def test_the_strongest_shift_has_a_finite_divergence(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine = make_engine(BASE, *attached(workshop))
    for alpha in (100.0, -100.0):
        found = run_alone(
            engine, request("r", PROMPT, SteeringSpec("tab", alpha=alpha, bridge="map"), count=3)
        )
        assert found.finish == "length" and 0 < found.kl < math.inf

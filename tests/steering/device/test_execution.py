"""An engine that runs as on a GPU gives the same replies, and the host rarely waits for the device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.adapters import Adapter
from steering.device.execution import Execution, execution_on
from steering.device.side_stream import CudaSideStream
from steering.engine import drawn, sampler
from steering.engine.engine import Engine, EngineConfig
from steering.engine.request import SamplingParams
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, request, tokenizer_of
from tests.steering.tape import HostReads, like_a_gpu

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


arrivals = st.lists(
    st.tuples(
        st.integers(0, 6),  # the step before which the request arrives
        st.integers(1, 12),  # tokens of its prompt
        st.integers(1, 9),  # tokens asked for
        st.sampled_from([None, "same", "map", "rescore"]),
        st.booleans(),  # sampled, not greedy
        st.sampled_from([None, 1, 3]),  # steps until it is aborted
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(arrivals=arrivals, pages=st.sampled_from([12, 400]))
def test_any_traffic_gets_the_same_tokens_either_way(
    workshop: Workshop, arrivals: list[Any], pages: int
) -> None:
    """Late arrivals, aborts, preemption and sampling: running as on a GPU changes no reply."""
    adapters = kinds_of_steering(workshop)
    plain, other = (
        _traffic(workshop, execution, adapters, arrivals, pages) for execution in (Execution(), like_a_gpu())
    )
    for name, (tokens, finish) in plain.items():
        got, how = other[name]
        # An aborted request may have come a step further in one of the two; the tokens in common are the same.
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
        engine.session.attach(adapter)
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
    """It waits for the tokens; `rescore` also waits for its candidates and for the scores of their trials."""
    for module in (sampler, drawn):
        # On a CPU `best` uses numpy, whose reads are not counted.
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
    # Capturing a new size waits as well, and `rescore` meets many sizes. The step with the fewest waits met no new one.
    assert len(min(least, key=len)) == reads, least


def test_a_device_chooses_how_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for device, eager in (("cpu", False), ("cuda", True)):
        plain = execution_on(torch.device(device), eager=eager)
        assert not plain.runs_ahead and plain.capture_base is plain.capture_steering is None
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    chosen = execution_on(torch.device("cuda"))
    assert chosen.runs_ahead and isinstance(chosen.side, CudaSideStream)
    # Replays of the base and of a steering model may overlap, which two graphs of one instance must not.
    assert chosen.capture_base is not None and chosen.capture_base is not chosen.capture_steering

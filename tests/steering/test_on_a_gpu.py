"""Tests that need a GPU, skipped without one. Stand-ins on the CPU test everything else about a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from steering.adapters import load_adapter
from steering.device.cuda_graphs import CudaGraphs
from steering.device.execution import execution_on
from steering.engine.constraint import ConstraintCompiler
from steering.engine.engine import Engine, EngineConfig
from steering.engine.request import Request, SamplingParams
from steering.model.kv_cache import KVCache
from steering.model.loading import load_model
from steering.model.pages import PageAllocator
from steering.model.row_input import RowInput
from steering.model.runner import Runner
from steering.specs import SteeringSpec
from tests.models import ARCHITECTURES
from tests.steering.conftest import MakeEngine
from tests.steering.support import TOLERANCE, Tiny, Workshop, request, run, tokenizer_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
TEXTS = ("The ferry left the harbour at nine", "Once upon a time", "def area(w):", "She was born in Lisbon")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_recorded_float32_equals_the_cpu(
    workshop: Workshop, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture, arch: str
) -> None:
    """Greedy in float32, all kinds of steering in one batch: tokens and log probabilities equal the CPU's."""
    base = Tiny(arch, "bl", padding=3)
    settings = {"map": {"bridge": "map"}, "rescore": {"bridge": "rescore"}}
    cross, same = Tiny("llama", "sp", seed=5), Tiny("llama", "bl", seed=7, padding=3)
    adapters = {name: workshop.adapter(name, cross, **given)[0] for name, given in settings.items()}
    adapters["same"] = workshop.adapter("same", same)[0]
    requests = [
        request(text, tokenizer_of("bl").encode(text), *([name] if name else []), count=24)
        for text, name in zip(TEXTS, (None, *adapters), strict=True)
    ]
    expected = run(make_engine(base, *adapters.values()), requests)
    loaded = load_model(workshop.folder(base), device="cuda", dtype="float32")
    engine = Engine(loaded, EngineConfig(page_size=4, max_num_seqs=8))
    for name, adapter in adapters.items():
        engine.session.attach(load_adapter(name, adapter.path, device="cuda", dtype="float32"))
    got = run(engine, requests)
    for name, result in expected.items():
        assert got[name].tokens == result.tokens
        torch.testing.assert_close(got[name].logprobs, result.logprobs, atol=TOLERANCE, rtol=TOLERANCE)
    assert not caplog.records, "a pass could not be captured"
    engine.check_integrity()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_graph_gives_what_the_pass_gives(workshop: Workshop, dtype: str) -> None:
    loaded = load_model(workshop.folder(Tiny("llama", "bl")), device="cuda", dtype=dtype)
    capture = execution_on(loaded.device).capture_base
    assert capture is not None

    def logits(runner: Runner) -> list[Tensor]:
        pages = [runner.cache.allocator.allocate(2) for _ in range(3)]
        runner.forward([RowInput(range(3, 15), 0, own, 12) for own in pages])
        return [
            runner.forward([RowInput([t + n], 12 + t, own, 0) for n, own in enumerate(pages)])
            for t in range(12)
        ]

    plain, captured = (
        logits(Runner(loaded, KVCache(PageAllocator(16, 16)), given)) for given in (None, capture)
    )
    for got, expected in zip(captured, plain, strict=True):
        torch.testing.assert_close(got, expected, atol=2e-2, rtol=2e-2)


def test_a_capture_that_fails_spoils_no_later_one() -> None:
    device = torch.device("cuda")
    graphs = CudaGraphs(device)
    numbers = torch.arange(4.0, device=device)
    first = graphs(lambda: numbers + 1)
    with pytest.raises(RuntimeError):
        graphs(lambda: numbers * float(numbers.sum()))
    second = graphs(lambda: numbers + 2)
    numbers += 1
    assert first().tolist() == [2, 3, 4, 5]
    assert second().tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_contexts_of_all_lengths_in_reduced_precision(workshop: Workshop, dtype: str) -> None:
    """Prompts in chunks and decodes with a growing number of pages; the steering model's pool grows as well."""
    base = load_model(workshop.folder(Tiny("llama", "bl")), device="cuda", dtype=dtype)
    adapter = workshop.adapter("delta", Tiny("llama", "sp", seed=5))[0]
    engine = Engine(base, EngineConfig(page_size=16, max_num_seqs=8, max_step_tokens=40))
    engine.session.attach(load_adapter("delta", adapter.path, device="cuda", dtype=dtype))
    prompts = [[5 + n, *range(6, 16 + 9 * n)] for n in range(12)]
    got = run(engine, [request(str(n), prompt, "delta", count=40) for n, prompt in enumerate(prompts)])
    assert all(result.finish == "length" and len(result.tokens) == 40 for result in got.values())
    engine.check_integrity()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_holds(workshop: Workshop, temperature: float) -> None:
    base = load_model(workshop.folder(Tiny("llama", "bl")), device="cuda", dtype="float32")
    engine = Engine(base, EngineConfig(page_size=16, max_num_seqs=8))
    constraint = ConstraintCompiler(base.vocabulary, base.eos_token_ids).compile('start: "yes" | "no"')
    prompt = tokenizer_of("bl").encode(TEXTS[0])
    plain = [request("plain", prompt, count=8)]
    held = [
        replace(
            request(f"held-{seed}", prompt, count=8, temperature=temperature, seed=seed),
            constraint=constraint,
        )
        for seed in range(4)
    ]
    # One constrained row alone, four beside a free one, and four alone.
    for requests in (held[:1], held + plain, held):
        for name, result in run(engine, requests).items():
            assert name == "plain" or base.tokenizer.decode(result.tokens, skip_special_tokens=True) in (
                "yes",
                "no",
            )


def test_running_ahead_and_beside_changes_no_token(workshop: Workshop) -> None:
    """An eager engine draws the same tokens for many sampled requests, more than it runs at once."""
    base = workshop.folder(Tiny("qwen2", "bl"))
    adapter = workshop.adapter("delta", Tiny("llama", "sp", seed=5), bridge="map")[0]
    results = []
    for eager in (True, False):
        loaded = load_model(base, device="cuda", dtype="float32")
        engine = Engine(loaded, EngineConfig(page_size=16, max_num_seqs=6, enforce_eager=eager))
        engine.session.attach(load_adapter("delta", adapter.path, device="cuda", dtype="float32"))
        requests = [
            Request(
                str(number),
                tuple(tokenizer_of("bl").encode(TEXTS[number % 4])),
                SamplingParams(max_tokens=3 + number, temperature=0.8, seed=number),
                (SteeringSpec("delta"),) if number % 3 else (),
            )
            for number in range(20)
        ]
        results.append({name: result.tokens for name, result in run(engine, requests).items()})
        engine.check_integrity()
    assert results[0] == results[1]

"""Batched, paged, chunked and steered: every architecture must give what transformers gives one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from steering.adapters import Adapter
from steering.crossing.text import decode
from steering.engine.engine import Engine, EngineConfig
from steering.engine.outputs import StepOutput
from steering.model.loading import load_model
from steering.specs import SteeringSpec
from tests.models import ARCHITECTURES
from tests.oracle import NaiveAdapter, Oracle
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, assert_close, drain, request, run, tokenizer_of
from tests.steering.tape import like_a_gpu

TEXTS = (
    "The ferry left the harbour at nine, and the gulls went with it as far as the lighthouse.",
    "Once upon a time",
    "A naïve café owner in Köln charged 3€",
    "She was born in Lisbon, she said",
    "def area(width, height):\n    return width * height",
)
STEPS = 9
# Alternating, so that Qwen2 never meets "sp": transformers would give it its own byte-level tokenizer back.
TOKENIZERS = ("sp", "bl")


def cross(tokenizer: str) -> str:
    return "bl" if tokenizer == "sp" else "sp"


def next_arch(arch: str, by: int = 1) -> str:
    return ARCHITECTURES[(ARCHITECTURES.index(arch) + by) % len(ARCHITECTURES)]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("step_tokens", "on_a_gpu"), [(6, False), (512, False), (512, True)])
def test_a_mixed_batch_equals_transformers_one_by_one(
    workshop: Workshop,
    make_engine: MakeEngine,
    caplog: pytest.LogCaptureFixture,
    arch: str,
    step_tokens: int,
    on_a_gpu: bool,
) -> None:
    """Unsteered, steered in one vocabulary, across two by both bridges, and by a proxy, all in one batch.

    Once more as on a GPU: short passes recorded and replayed, the base a step ahead.
    """
    tokenizer = TOKENIZERS[ARCHITECTURES.index(arch) % 2]
    base, steering = Tiny(arch, tokenizer, padding=3), Tiny(next_arch(arch), cross(tokenizer), seed=5)
    same = workshop.adapter("same", Tiny(next_arch(arch, 2), tokenizer, seed=7, padding=3), alpha=0.8)
    delta = workshop.adapter("delta", steering, bridge="rescore")
    plain = workshop.adapter("plain", steering, bridge="map", alpha=1.5)
    other = Tiny(next_arch(arch, 3), cross(tokenizer), seed=6)
    proxy = workshop.adapter("proxy", steering, other, bridge="rescore", alpha=0.7)
    cases: list[tuple[Adapter, NaiveAdapter] | None] = [None, same, delta, plain, proxy]
    engine = make_engine(
        base,
        *(c[0] for c in cases if c),
        execution=like_a_gpu() if on_a_gpu else None,
        max_step_tokens=step_tokens,
        max_num_seqs=min(5, step_tokens),
    )
    requests = [
        request(str(i), tokenizer_of(tokenizer).encode(text), *([case[0].name] if case else []), count=STEPS)
        for i, (text, case) in enumerate(zip(TEXTS, cases, strict=True))
    ]
    results = run(engine, requests)
    for one, case in zip(requests, cases, strict=True):
        oracle = Oracle(workshop.naive(base), *([case[1]] if case else []))
        tokens, logprobs = oracle.greedy(one.prompt_ids, STEPS)
        got = results[one.request_id]
        assert got.tokens == tokens
        assert got.finish == "length"
        assert_close(got.logprobs, logprobs)
        texts = [[*one.prompt_ids, *tokens[:step]] for step in range(STEPS)]
        base_rows = [float(oracle.base_logprobs(t)[token]) for t, token in zip(texts, tokens, strict=True)]
        assert_close([entry.base_logprob for entry in got.entries], base_rows)
    assert engine.stats().kv_pages_used == 0
    assert not caplog.records, "a pass could not be recorded"


@pytest.mark.parametrize(("bridge", "top_k", "unmatched"), [
    ("map", None, "neutral"),
    ("map", None, "zero"),
    ("map", 20, "neutral"),
    ("rescore", None, "neutral"),
    ("rescore", None, "zero"),
    ("rescore", 10, "neutral"),
])  # fmt: skip
@pytest.mark.parametrize("tokenizer", ["sp", "bl"])
def test_every_reported_figure_equals_the_naive_computation(
    workshop: Workshop,
    make_engine: MakeEngine,
    tokenizer: str,
    bridge: str,
    top_k: int | None,
    unmatched: str,
) -> None:
    base, steering = Tiny("llama", tokenizer), Tiny("qwen3", cross(tokenizer), seed=3)
    adapter, naive = workshop.adapter("a", steering, bridge=bridge, top_k=top_k, unmatched=unmatched)
    engine = make_engine(base, adapter)
    prompt = tokenizer_of(tokenizer).encode("In winter the lake froze over, naïve 世")
    got = run(engine, [request("r", prompt, "a", count=8, logprobs=5)])["r"]
    oracle = Oracle(workshop.naive(base), naive)
    for step, entry in enumerate(got.entries):
        text = [*prompt, *got.tokens[:step]]
        row, shift = oracle.logprobs(text), oracle.shift(text)
        best = row.topk(5)
        assert entry.token_id == got.tokens[step] == int(best.indices[0])
        assert entry.rank == 1
        assert_close([entry.logprob, entry.shift], [float(best.values[0]), float(shift[entry.token_id])])
        assert_close([value for _, value in entry.top], best.values.tolist())
        assert_close([float(row[token]) for token, _ in entry.top], best.values.tolist())
    changed = [
        int(oracle.logprobs(t).argmax()) != int(oracle.base_logprobs(t).argmax())
        for t in ([*prompt, *got.tokens[:step]] for step in range(8))
    ]
    assert got.changed == sum(changed)
    rows = [
        (oracle.logprobs(t), oracle.base_logprobs(t)) for t in ([*prompt, *got.tokens[:s]] for s in range(8))
    ]
    assert_close([got.kl], [float(sum((p.exp() * (p - q)).sum() for p, q in rows))], 1e-3)


def test_adapters_add_up(workshop: Workshop, make_engine: MakeEngine) -> None:
    """Two adapters in one request, one of them three times, each with an alpha of its own."""
    base = Tiny("phi", "sp")
    one = workshop.adapter("one", Tiny("gpt2", "bl", seed=2), bridge="rescore")
    two = workshop.adapter("two", Tiny("llama", "sp", seed=4), bridge="map", alpha=0.5)
    engine = make_engine(base, one[0], two[0])
    prompt = tokenizer_of("sp").encode("The baker's van stopped")
    specs = (
        SteeringSpec("one", alpha=0.6),
        SteeringSpec("two"),
        SteeringSpec("one", alpha=-0.4, bridge="map", top_k=50),
        SteeringSpec("one", alpha=0.3),
    )
    twins = (
        NaiveAdapter(one[1].models, alpha=0.6, bridge="rescore"),
        NaiveAdapter(two[1].models, alpha=0.5, bridge="map"),
        NaiveAdapter(one[1].models, alpha=-0.4, bridge="map", top_k=50),
        NaiveAdapter(one[1].models, alpha=0.3, bridge="rescore"),
    )
    tokens, logprobs = Oracle(workshop.naive(base), *twins).greedy(prompt, 8)
    got = run(engine, [request("r", prompt, *specs, count=8)])["r"]
    assert got.tokens == tokens
    assert_close(got.logprobs, logprobs)


@pytest.mark.parametrize("tokenizer", ["sp", "bl"])
@pytest.mark.parametrize("start", ["half", "special", "bare", "typed"])
def test_odd_prompts_across_vocabularies(
    workshop: Workshop, make_engine: MakeEngine, tokenizer: str, start: str
) -> None:
    """Half a character at the end, special tokens inside, nothing to read at all, special tokens typed as text."""
    backend = tokenizer_of(tokenizer)
    prompt = {
        "half": backend.encode("Köln 世")[:-1],
        "special": [*backend.encode("Hi. "), backend.eos_token_id, *backend.encode("It's 5")],
        "bare": [backend.bos_token_id],
        "typed": backend.encode("a<s>b <|endoftext|>", split_special_tokens=True),
    }[start]
    base = Tiny("llama", tokenizer)
    cases = {
        bridge: workshop.adapter(bridge, Tiny("qwen3", cross(tokenizer), seed=8), bridge=bridge)
        for bridge in ("map", "rescore")
    }
    engine = make_engine(base, *(adapter for adapter, _ in cases.values()))
    results = run(engine, [request(name, prompt, name, count=7) for name in cases])
    for name, (_, naive) in cases.items():
        tokens, logprobs = Oracle(workshop.naive(base), naive).greedy(prompt, 7)
        assert results[name].tokens == tokens
        assert_close(results[name].logprobs, logprobs)


def test_a_late_arrival_joins_the_batch(workshop: Workshop, make_engine: MakeEngine) -> None:
    base = Tiny("mistral", "bl")
    engine = make_engine(base, max_num_seqs=3, max_step_tokens=8)
    prompts = [tokenizer_of("bl").encode(text) for text in TEXTS]
    collected: dict[str, list[StepOutput]] = {}
    for number, prompt in enumerate(prompts):
        engine.add_request(request(str(number), prompt, count=STEPS))
        for output in engine.step():
            collected.setdefault(output.request_id, []).append(output)
    rest = drain(engine, {})
    oracle = Oracle(workshop.naive(base))
    for number, prompt in enumerate(prompts):
        early = [token for output in collected.get(str(number), []) for token in output.token_ids]
        assert [*early, *rest[str(number)].tokens] == oracle.greedy(prompt, STEPS)[0]


def test_published_story(shared: Path, make_engine: MakeEngine) -> None:
    expected = (shared / "README.md").read_text(encoding="utf-8").split('gives: "')[1].split('" |')[0]
    loaded = load_model(shared / "models" / "stories-260k", device="cpu")
    engine = Engine(loaded, EngineConfig(max_num_seqs=2))
    prompt = loaded.tokenizer.encode("Once upon a time")
    got = run(engine, [request("r", prompt, count=120)])["r"]
    text = decode(loaded.vocabulary, [*prompt, *got.tokens])
    assert text.startswith(expected)
    engine.check_integrity()

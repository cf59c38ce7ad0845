"""The laws on what a steered distribution is: 1 to 4 and 10, and the text part of 6."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.auto.tokenization_auto import AutoTokenizer

from mapping_cache import MatchKind, build_map, canonical_vocabulary
from steering.adapters import Adapter
from steering.crossing.text import TextStream, decode
from steering.engine.request import Request
from steering.specs import SteeringSpec
from tests.oracle import Oracle, complete_text, segments
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, assert_close, request, run, run_alone, tokenizer_of

BASE = Tiny("llama", "sp", padding=5)
SAME = Tiny("gpt2", "sp", seed=11, padding=5)
ACROSS = Tiny("qwen3", "bl", seed=12)
EXPERT, ANTIEXPERT = Tiny("gpt_neox", "bl", seed=13), Tiny("phi", "bl", seed=14)
PROMPT = "The captain told nobody that the bridge"
LENGTH = 8


def encode(text: str, kind: str = "sp") -> list[int]:
    ids: list[int] = tokenizer_of(kind).encode(text)
    return ids


@pytest.fixture
def steered() -> list[SteeringSpec]:
    """Every way to steer BASE: both kinds, both bridges, both relations of the vocabularies."""
    return [
        SteeringSpec("same"),
        SteeringSpec("across", bridge="map"),
        SteeringSpec("across", bridge="rescore"),
        SteeringSpec("across", bridge="rescore", alpha=2.0, top_k=30),
        SteeringSpec("proxy", bridge="map", alpha=0.5),
        SteeringSpec("proxy", bridge="rescore"),
    ]


def adapters(workshop: Workshop) -> list[Adapter]:
    return [
        workshop.adapter("same", SAME)[0],
        workshop.adapter("across", ACROSS)[0],
        workshop.adapter("proxy", EXPERT, ANTIEXPERT)[0],
    ]


def test_law_01_alpha_zero_is_the_base(
    workshop: Workshop, make_engine: MakeEngine, steered: list[SteeringSpec]
) -> None:
    engine = make_engine(BASE, *adapters(workshop))
    prompt = encode(PROMPT)
    plain = run_alone(engine, request("base", prompt, count=LENGTH))
    specs = [SteeringSpec(s.adapter, alpha=0.0, top_k=s.top_k, bridge=s.bridge) for s in steered]
    for name, result in run(
        engine, [request(str(i), prompt, spec, count=LENGTH) for i, spec in enumerate(specs)]
    ).items():
        assert result.tokens == plain.tokens, name
        assert_close(result.logprobs, plain.logprobs, 1e-5)
        assert result.changed == 0
        assert result.kl == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("alpha", [1e-7, -1e-7])
def test_law_01_holds_in_the_limit(
    workshop: Workshop, make_engine: MakeEngine, steered: list[SteeringSpec], alpha: float
) -> None:
    """At an alpha next to 0 the models run, and change nothing but the scores."""
    engine = make_engine(BASE, *adapters(workshop))
    plain = run_alone(engine, request("base", encode(PROMPT), count=LENGTH))
    for spec in steered:
        near = SteeringSpec(spec.adapter, alpha=alpha, bridge=spec.bridge)
        result = run_alone(engine, request("near", encode(PROMPT), near, count=LENGTH))
        assert result.tokens == plain.tokens
        assert_close(result.logprobs, plain.logprobs, 1e-4)


@pytest.mark.parametrize("kind", ["sp", "bl"])
@pytest.mark.parametrize("padding", [0, 7])
def test_law_02_a_vocabulary_onto_itself_is_the_identity(kind: str, padding: int) -> None:
    tokenizer = tokenizer_of(kind)
    size = len(tokenizer) + padding
    mapped = build_map(tokenizer, tokenizer, base_size=size, steering_size=size)
    assert mapped.is_identity
    assert mapped.ids.tolist() == list(range(size))
    real = mapped.kind[: len(tokenizer)]
    assert np.isin(real, [MatchKind.EXACT, MatchKind.SPECIAL]).all()
    assert (mapped.similarity[: len(tokenizer)] == 1).all()


@pytest.mark.parametrize("name", ["llama-2", "gpt2", "llama-3", "qwen"])
def test_law_02_for_published_vocabularies(shared: Path, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "tokenizers" / name)
    mapped = build_map(tokenizer, tokenizer)
    assert mapped.is_identity
    assert np.isin(mapped.kind, [MatchKind.EXACT, MatchKind.SPECIAL]).all()


def test_law_03_base_as_antiexpert_gives_the_expert(workshop: Workshop, make_engine: MakeEngine) -> None:
    expert = Tiny("qwen3", "sp", seed=21, padding=5)
    adapter, _ = workshop.adapter("tuned", expert, BASE, alpha=1.0)
    engine = make_engine(BASE, adapter)
    prompt = encode(PROMPT)
    got = run_alone(engine, request("r", prompt, "tuned", count=LENGTH))
    tokens, logprobs = Oracle(workshop.naive(expert)).greedy(prompt, LENGTH)
    assert got.tokens == tokens
    assert_close(got.logprobs, logprobs)


@pytest.mark.parametrize("bridge", ["map", "rescore"])
@pytest.mark.parametrize("model", [Tiny("gpt2", "sp", seed=11, padding=5), Tiny("gpt_neox", "bl", seed=13)])
def test_law_03_expert_as_antiexpert_gives_the_base(
    workshop: Workshop, make_engine: MakeEngine, model: Tiny, bridge: str
) -> None:
    adapter, _ = workshop.adapter("null", model, model, bridge=bridge)
    engine = make_engine(BASE, adapter)
    plain = run_alone(engine, request("base", encode(PROMPT), count=LENGTH))
    got = run_alone(engine, request("r", encode(PROMPT), SteeringSpec("null", alpha=3.0), count=LENGTH))
    assert got.tokens == plain.tokens
    assert_close(got.logprobs, plain.logprobs)


@pytest.mark.parametrize("config", [{}, {"max_step_tokens": 8, "max_num_seqs": 4}])
def test_law_04_a_batch_gives_each_row_what_it_gets_alone(
    workshop: Workshop, make_engine: MakeEngine, steered: list[SteeringSpec], config: dict[str, int]
) -> None:
    texts = [
        PROMPT,
        "Nobody",
        "He wrote three books about rivers, two",
        "A naïve 世",
        "\n\n",
        "It is 555-0142,",
    ]
    requests: list[Request] = [request("base", encode("Once upon"), count=LENGTH)]
    for number, (text, spec) in enumerate(zip(texts, steered, strict=True)):
        requests.append(request(f"greedy{number}", encode(text), spec, count=LENGTH + number))
        drawn = request(f"drawn{number}", encode(text), spec, count=LENGTH, temperature=0.8, seed=number)
        requests.append(drawn)
    both = (SteeringSpec("same", alpha=0.5), SteeringSpec("across", alpha=-0.5))
    requests.append(request("both", encode(PROMPT), *both, count=LENGTH))
    engine = make_engine(BASE, *adapters(workshop), **config)
    together = run(engine, requests)
    alone = make_engine(BASE, *adapters(workshop), prefix_caching=False)
    for one in requests:
        expected = run_alone(alone, one)
        assert together[one.request_id].tokens == expected.tokens, one.request_id
        assert_close(together[one.request_id].logprobs, expected.logprobs)


@pytest.mark.parametrize("kind", ["sp", "bl"])
def test_law_06_pieces_joined_are_the_whole_text(kind: str) -> None:
    vocabulary = canonical_vocabulary(tokenizer_of(kind))

    @given(st.lists(st.integers(0, len(vocabulary) - 1), max_size=20), st.data())
    @settings(max_examples=100)
    def check(ids: list[int], data: st.DataObject) -> None:
        parts = segments(vocabulary, ids)
        whole = "".join(complete_text(part, final=True) for part in parts if isinstance(part, bytes))
        assert decode(vocabulary, ids) == whole
        stream, pieces, rest = TextStream(vocabulary), [], ids
        while rest:
            cut = data.draw(st.integers(1, len(rest)))
            pieces.append(stream.push(rest[:cut]))
            rest = rest[cut:]
        joined = "".join(pieces)
        last = parts[-1] if parts and isinstance(parts[-1], bytes) else b""
        assert joined + stream.finish() == whole
        # All that is complete has been given out, and nothing that a later token could change.
        held = len(complete_text(last, final=True)) - len(complete_text(last))
        assert len(joined) == len(whole) - held

    check()


@pytest.mark.parametrize("kind", ["sp", "bl"])
def test_law_06_any_text_survives_encoding_and_decoding(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    vocabulary = canonical_vocabulary(tokenizer)

    # To a sentencepiece tokenizer its own mark is a space, whoever wrote it.
    characters = st.characters(codec="utf-8", exclude_characters="▁" if kind == "sp" else "")

    @given(st.text(characters, max_size=30))
    @settings(max_examples=100)
    def check(text: str) -> None:
        ids = tokenizer.encode(text, split_special_tokens=True)
        assert decode(vocabulary, ids) == text

    check()


def _scored(result_prompt: Sequence[object], start: int) -> list[float]:
    return [entry.logprob for entry in result_prompt[start:]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("step_tokens", [7, 512])
def test_law_10_echo_and_generation_see_the_same_distribution(
    workshop: Workshop, make_engine: MakeEngine, steered: list[SteeringSpec], step_tokens: int
) -> None:
    engine = make_engine(BASE, *adapters(workshop), max_step_tokens=step_tokens, max_num_seqs=5)
    prompt = encode(PROMPT)
    ways: list[tuple[SteeringSpec, ...]] = [(), *((spec,) for spec in steered), (steered[0], steered[2])]
    generated = run(
        engine,
        [
            request(str(i), prompt, *specs, count=LENGTH, temperature=1.0, seed=i)
            for i, specs in enumerate(ways)
        ],
    )
    echoes = [
        request(
            str(i),
            [*prompt, *generated[str(i)].tokens],
            *specs,
            count=0 if i % 2 else 1,
            prompt_logprobs=3,
        )
        for i, specs in enumerate(ways)
    ]
    for name, echo in run(engine, echoes).items():
        first = generated[name]
        assert echo.prompt is not None
        assert len(echo.prompt) == len(prompt) + LENGTH
        assert echo.prompt[0] is None
        assert len(echo.tokens) == (int(name) + 1) % 2
        assert echo.finish == "length"
        later = echo.prompt[len(prompt) :]
        assert_close([e.logprob for e in later], first.logprobs)  # type: ignore[union-attr]
        for scored, drawn in zip(later, first.entries, strict=True):
            assert scored is not None
            assert (scored.token_id, scored.rank) == (drawn.token_id, drawn.rank)
            assert_close([scored.base_logprob, scored.shift], [drawn.base_logprob, drawn.shift])
            assert_close([value for _, value in scored.top[:2]], [value for _, value in drawn.top])


@pytest.mark.parametrize("bridge", ["map", "rescore"])
def test_law_10_scores_equal_the_naive_computation(
    workshop: Workshop, make_engine: MakeEngine, bridge: str
) -> None:
    adapter, naive = workshop.adapter("across", ACROSS, bridge=bridge)
    engine = make_engine(BASE, adapter)
    text = encode("The letters weren't in Köln, naïve 世界.")
    got = run_alone(engine, request("r", text, "across", count=0, prompt_logprobs=0))
    assert got.prompt is not None
    assert_close(_scored(got.prompt, 1), Oracle(workshop.naive(BASE), naive).scored(text))

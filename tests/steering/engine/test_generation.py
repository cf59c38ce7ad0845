"""A request's parameters and the tokens that the engine generates for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.auto.tokenization_auto import AutoTokenizer

from steering.adapters import load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.model.loading import load_model
from steering.specs import SteeringSpec
from tests.models import save_folder, tiny_model
from tests.oracle import NaiveAdapter, NaiveModel, Oracle
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, assert_close, request, run, run_alone, tokenizer_of

BASE = Tiny("qwen3", "bl")
PROMPT = tokenizer_of("bl").encode("The children skated on it, and")
DRAWN: dict[str, Any] = {"temperature": 1.0, "count": 12}


def test_a_seed_gives_the_same_text_in_any_batch(make_engine: MakeEngine) -> None:
    engine = make_engine(BASE)
    alone = run_alone(engine, request("r", PROMPT, seed=5, **DRAWN))
    crowd = [request(str(i), PROMPT[: 3 + i], seed=i, **DRAWN) for i in range(6)]
    batch = run(engine, [*crowd[:3], request("r", PROMPT, seed=5, **DRAWN), *crowd[3:]])
    assert batch["r"].tokens == alone.tokens
    again = run_alone(
        make_engine(BASE, max_step_tokens=3, max_num_seqs=3), request("r", PROMPT, seed=5, **DRAWN)
    )
    assert again.tokens == alone.tokens


def test_other_seeds_and_no_seed_give_other_texts(make_engine: MakeEngine) -> None:
    engine = make_engine(BASE)
    seeds: list[int | None] = [1, 2, 3, None, None]
    results = run(engine, [request(str(i), PROMPT, seed=s, **DRAWN) for i, s in enumerate(seeds)])
    assert len({tuple(result.tokens) for result in results.values()}) == len(seeds)


def test_the_global_generator_is_left_alone(make_engine: MakeEngine) -> None:
    engine = make_engine(BASE)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    run_alone(engine, request("r", PROMPT, seed=1, **DRAWN))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-4}, {"temperature": 1e-30}]
)
def test_a_choice_of_one_is_greedy(make_engine: MakeEngine, narrow: dict[str, Any]) -> None:
    engine = make_engine(BASE)
    greedy = run_alone(engine, request("g", PROMPT, count=12))
    assert run_alone(engine, request("r", PROMPT, **(DRAWN | narrow), seed=9)).tokens == greedy.tokens


def test_reported_figures_are_those_before_penalties_and_temperature(
    workshop: Workshop, make_engine: MakeEngine
) -> None:
    engine = make_engine(BASE)
    oracle = Oracle(workshop.naive(BASE))
    got = run_alone(
        engine,
        request("r", PROMPT, seed=4, temperature=0.6, repetition_penalty=1.5, presence_penalty=1.0, count=10),
    )
    assert_close(got.logprobs, oracle.scored([*PROMPT, *got.tokens])[-10:])


def test_bias_and_penalties_choose(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine = make_engine(BASE)
    assert run_alone(engine, request("b", PROMPT, logit_bias=((77, 100.0),), count=3)).tokens == [77, 77, 77]
    banned = run_alone(engine, request("g", PROMPT, count=1)).tokens[0]
    assert run_alone(engine, request("n", PROMPT, logit_bias=((banned, -100.0),), count=1)).tokens != [banned]
    tokens = run_alone(engine, request("p", PROMPT, frequency_penalty=50.0, count=30)).tokens
    assert len(set(tokens)) == 30
    oracle = Oracle(workshop.naive(BASE))
    text = list(PROMPT)
    for token in run_alone(engine, request("q", PROMPT, repetition_penalty=1.7, count=8)).tokens:
        row = oracle.logprobs(text)
        seen = sorted(set(text))
        row[seen] *= 1.7
        assert token == int(row.argmax())
        text.append(token)


def test_end_tokens_end_and_are_reported(make_engine: MakeEngine) -> None:
    engine = make_engine(BASE)
    eos = tokenizer_of("bl").eos_token_id
    towards: dict[str, Any] = {"logit_bias": ((eos, 100.0),)}
    ended = run_alone(engine, request("e", PROMPT, **towards, ignore_eos=False))
    assert (ended.tokens, ended.finish) == ([eos], "stop")
    ignored = run_alone(engine, request("i", PROMPT, **towards, count=3))
    assert (ignored.tokens, ignored.finish) == ([eos] * 3, "length")
    late = run_alone(engine, request("m", PROMPT, **towards, ignore_eos=False, min_tokens=4))
    assert eos not in late.tokens[:4]
    assert (len(late.tokens), late.finish) == (5, "stop")
    greedy = run_alone(engine, request("g", PROMPT, count=6)).tokens
    stopped = run_alone(engine, request("s", PROMPT, stop_token_ids=frozenset({greedy[2]}), count=6))
    assert stopped.tokens == greedy[: greedy.index(greedy[2]) + 1]
    assert stopped.finish == "stop"


def test_a_bad_sequence_is_never_completed(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine = make_engine(BASE)
    free = run_alone(engine, request("g", PROMPT, count=8)).tokens
    bad = (tuple(free[3:6]), (free[0],))
    tokens = run_alone(engine, request("b", PROMPT, count=8, bad_sequences=bad)).tokens
    oracle, text = Oracle(workshop.naive(BASE)), list(PROMPT)
    for token in tokens:
        row = oracle.logprobs(text)
        for sequence in bad:
            # Only what was generated counts, not the prompt.
            said = text[len(PROMPT) :]
            if said[len(said) - len(sequence) + 1 :] == list(sequence[:-1]):
                row[sequence[-1]] = -torch.inf
        assert token == int(row.argmax())
        text.append(token)
    # With its beginning in the prompt only, nothing is forbidden.
    split = (PROMPT[-1], free[0])
    assert run_alone(engine, request("s", PROMPT, count=2, bad_sequences=(split,))).tokens == free[:2]


def test_the_cached_part_of_a_prompt_is_told(make_engine: MakeEngine) -> None:
    engine = make_engine(BASE, page_size=4)
    prompt = [*PROMPT, *PROMPT][:13]
    told: list[int] = []
    for name in "ab":
        engine.add_request(request(name, prompt, count=2))
        while engine.has_work:
            told += [output.cached_tokens for output in engine.step()]
    assert told == [0, 0, 12, 12]


def test_log_probabilities_come_only_when_asked_for(make_engine: MakeEngine) -> None:
    engine = make_engine(BASE)
    silent = run_alone(engine, request("n", PROMPT, logprobs=None, count=4))
    assert silent.entries == []
    assert silent.prompt is None
    chosen = run_alone(engine, request("c", PROMPT, logprobs=0, count=4))
    assert [entry.token_id for entry in chosen.entries] == chosen.tokens
    assert all(entry.top == () for entry in chosen.entries)
    wide = run_alone(engine, request("w", PROMPT, logprobs=10**6, count=1))
    assert len(wide.entries[0].top) == len(tokenizer_of("bl"))


@pytest.mark.parametrize("bridge", ["map", "rescore"])
@pytest.mark.parametrize("vocabulary", ["gpt2", "llama-2"])
def test_published_vocabularies_give_the_naive_distribution(
    shared: Path, tmp_path: Path, bridge: str, vocabulary: str
) -> None:
    """A trained base of 512 tokens, steered by a random delta that has a published vocabulary of tens of thousands."""
    tokenizer = AutoTokenizer.from_pretrained(shared / "tokenizers" / vocabulary)
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    save_folder(tmp_path / "delta", tiny_model("llama", len(tokenizer), 2, special), tokenizer)
    path = shared / "models" / "stories-260k"
    engine = Engine(load_model(path, device="cpu", dtype="float32"), EngineConfig(max_num_seqs=2))
    engine.session.attach(load_adapter("delta", tmp_path / "delta", device="cpu", dtype="float32"))
    prompt = engine.base.tokenizer.encode("Once upon a time, there")
    spec = SteeringSpec("delta", alpha=1.0, bridge=bridge)
    got = run_alone(engine, request("r", prompt, spec, count=8))
    naive = NaiveAdapter((NaiveModel(tmp_path / "delta"),), bridge=bridge)
    tokens, logprobs = Oracle(NaiveModel(path), naive).greedy(prompt, 8)
    assert got.tokens == tokens
    assert_close(got.logprobs, logprobs)


@pytest.mark.parametrize(
    "name", ["max_num_seqs", "max_model_len", "max_step_tokens", "page_size", "kl_every"]
)
def test_a_limit_below_one_is_refused_by_name(name: str) -> None:
    limits: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        EngineConfig(**limits)

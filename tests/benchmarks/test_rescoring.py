"""The counting bridge steers as `rescore` does, and counts the rows on which trials ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config

from benchmarks.decoding import step_seconds
from benchmarks.peers import our_tokens
from benchmarks.rescoring import COUNTED, counting
from benchmarks.workloads.engines import make_engine
from benchmarks.workloads.jobs import Job
from benchmarks.workloads.models import random_delta, random_model
from steering.bridges import rescore
from steering.bridges.table import BRIDGES
from steering.engine.engine import Engine
from steering.specs import SteeringSpec
from steering.steerers.steerer import Steerer
from steering.steerers.trials import Trial, score_trials
from tests.models import tokenizer_byte_level, tokenizer_sentencepiece

PROMPTS = [tuple(range(300 + 20 * n, 316 + 20 * n)) for n in range(4)]
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    # Drawn wide, so that some tokens are likely enough to be tried.
    "initializer_range": 0.3,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    large, small = tokenizer_byte_level(400), tokenizer_sentencepiece(480)
    base = random_model(Qwen2Config(vocab_size=len(large), **SHAPE), large, dtype=torch.float32)
    delta = random_model(LlamaConfig(vocab_size=len(small), **SHAPE), small, dtype=torch.float32)
    made = make_engine(base, 4)
    made.session.attach(random_delta("delta", delta))
    return made


def test_it_steers_as_rescore_does(engine: Engine) -> None:
    jobs = [Job(prompt, 8) for prompt in PROMPTS]
    expected = our_tokens(engine, jobs, (SteeringSpec("delta", bridge="rescore"),))
    with counting():
        assert our_tokens(engine, jobs, (SteeringSpec("delta", bridge=COUNTED),)) == expected
    assert expected != our_tokens(engine, jobs, (SteeringSpec("delta", bridge="map"),))
    assert COUNTED not in BRIDGES
    engine.check_integrity()


@pytest.mark.parametrize("tries_all", [False, True])
def test_it_counts_the_rows_whose_continuations_are_scored(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tries_all: bool
) -> None:
    rows = 0

    def noting(steerer: Steerer, trials: Sequence[Trial]) -> dict[Trial, list[float]]:
        nonlocal rows
        rows += len({id(trial.state) for trial in trials})
        return score_trials(steerer, trials)

    monkeypatch.setattr(rescore, "score_trials", noting)
    with counting(everything=tries_all) as bridge:
        step_seconds(engine, [(SteeringSpec("delta", bridge=COUNTED),)] * 4, 6, prompts=PROMPTS)
    assert bridge.rows == rows > 0
    engine.check_integrity()

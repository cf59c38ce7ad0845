"""The peers generate what ours does, so that their throughputs compare the same work."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config

from benchmarks.peers import STEERING, Setting, alike, our_tokens, run
from benchmarks.systems.published_loop import PublishedLoop
from benchmarks.systems.sides import Result, chosen, make_batches, measure, ratios, static
from benchmarks.systems.transformers_peer import continuous, generate, plain_model
from benchmarks.workloads.jobs import Job
from benchmarks.workloads.models import random_delta, random_model
from benchmarks.workloads.shapes import Shapes
from benchmarks.workloads.tokenizers import Tokenizers
from steering.engine.engine import Engine, EngineConfig
from tests.models import tokenizer_byte_level, tokenizer_sentencepiece

LARGE, SMALL = 400, 480
COMPARED = 8


def config(kind: type[PreTrainedConfig], vocabulary: int) -> Any:
    # Drawn wide, so that the next token depends on everything before it.
    return kind(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
    )


BASE, CROSSED, DELTA = config(Qwen2Config, SMALL), config(Qwen2Config, LARGE), config(LlamaConfig, SMALL)


def jobs(vocabulary: int, count: int = 5) -> list[Job]:
    rng = random.Random(0)
    return [
        Job(tuple(rng.randrange(300, vocabulary) for _ in range(5 + 4 * number)), COMPARED + number)
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    return Tokenizers(tokenizer_byte_level(LARGE), tokenizer_sentencepiece(SMALL), real=False)


def engine(base: Any, tokenizer: Any, tokenizers: Tokenizers, *, neutral: bool = True) -> Engine:
    made = Engine(random_model(base, tokenizer, dtype=torch.float32), EngineConfig(prefix_caching=False))
    delta = random_delta("delta", random_model(DELTA, tokenizers.small, dtype=torch.float32))
    made.session.attach(replace(delta, neutral=neutral))
    return made


def plain(wanted: Any) -> Any:
    return plain_model(wanted, dtype=torch.float32)


def test_transformers_generates_what_ours_does(tokenizers: Tokenizers) -> None:
    ours, work = engine(BASE, tokenizers.small, tokenizers), jobs(SMALL)
    steered, unsteered = our_tokens(ours, work, STEERING), our_tokens(ours, work, ())
    base, delta = plain(BASE), plain(DELTA)
    assert steered != unsteered
    assert [len(tokens) for tokens in steered] == [job.tokens for job in work]
    assert first(generate(base, work)) == first(unsteered)
    assert first(generate(base, work, delta)) == first(steered)
    assert first(continuous(base, work, 3)[1]) == first(unsteered)


def test_the_loop_is_ours_where_every_token_has_a_counterpart(tokenizers: Tokenizers) -> None:
    ours, work = engine(BASE, tokenizers.small, tokenizers), jobs(SMALL, 2)
    vocabulary_map = ours.session.vocabulary_map("delta")

    class Spelled:
        """Reads text as the ids that it lists, so that both sides read the same prompts."""

        def decode(self, tokens: list[int], **_: Any) -> str:
            return " ".join(map(str, tokens))

        def encode(self, text: str) -> list[int]:
            return [int(word) for word in text.split()]

    loop = PublishedLoop(plain(BASE), plain(DELTA), (Spelled(), Spelled()), vocabulary_map)
    assert first([loop.generate(job) for job in work]) == first(our_tokens(ours, work, STEERING))


def test_the_loop_reads_everything_again_for_a_token_without_a_counterpart(tokenizers: Tokenizers) -> None:
    ours = engine(CROSSED, tokenizers.large, tokenizers, neutral=False)
    loop = PublishedLoop(
        plain(CROSSED),
        plain(DELTA),
        (tokenizers.large, tokenizers.small),
        ours.session.vocabulary_map("delta"),
    )
    work = jobs(LARGE, 4)
    found = [loop.generate(job) for job in work]
    generated = [token for tokens in found for token in tokens]
    assert loop.exact_share(generated) == loop.exact / len(generated)
    assert loop.inexact and loop.exact
    assert loop.inexact + loop.exact == sum(job.tokens for job in work)
    assert loop.read > loop.inexact * min(len(job.prompt) for job in work) / 2
    # The histories part where an exact token does not encode as its counterpart; the first token comes before that.
    assert [tokens[0] for tokens in found] == [tokens[0] for tokens in our_tokens(ours, work, STEERING)]


def test_batches_are_sampled_in_turn() -> None:
    batches = make_batches(jobs(SMALL), 2)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert [chosen(batches, repeat, whole=False)[0] for repeat in range(4)] == [*batches, batches[0]]
    assert chosen(batches, 1, whole=True) == batches


def test_only_wanted_tokens_count_and_sides_take_turns() -> None:
    work = jobs(SMALL)
    side = static("unsteered", plain(BASE), work, 2, whole=True)
    assert side.serve(0)[0] == sum(job.tokens for job in work)
    order: list[str] = []

    def noting(name: str) -> Any:
        def serve(repeat: int) -> tuple[int, float]:
            order.append(f"{name}{repeat}")
            return 6, 2.0

        return replace(side, name=name, serve=serve)

    results = measure([noting("a"), noting("b")], 2)
    assert order == ["a0", "b0", "a1", "b1"]
    assert [result.rates for result in results] == [(3.0, 3.0), (3.0, 3.0)]


def test_ratios_are_over_the_best_arrangement_of_each_repeat() -> None:
    results = [
        Result("steered", "ours", False, (6.0, 12.0)),
        Result("steered", "generate, batches of 8", True, (2.0, 4.0)),
        Result("steered", "generate, batches of 16", True, (3.0, 2.0)),
        Result("unsteered", "generate, batches of 8", True, (9.0, 9.0)),
    ]
    assert ratios(results, "steered", "generate") == (2.0, 3.0)


def test_alike_counts_up_to_the_first_difference() -> None:
    assert alike([[1, 2, 3], [4]], [[1, 9, 3], [4]]) == 0.5


def test_a_run_ends_in_one_line_of_figures(
    tokenizers: Tokenizers, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = Shapes(BASE, CROSSED, DELTA, torch.float32)
    report = run(Setting(shapes, tokenizers, requests=1, repeats=1))
    report.publish()
    bars = report.bars
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["benchmark"] == "peers" and [bar["name"] for bar in line["bars"]] == [
        bar.name for bar in bars
    ]
    assert line["figures"]["alike"] == {
        "generate": 1.0,
        "continuous batching": 1.0,
        "generate + processor": 1.0,
    }
    assert len(bars) == 4 and all(value > 0 for bar in bars for value in bar.values)


def first(found: list[list[int]]) -> list[list[int]]:
    return [tokens[:COMPARED] for tokens in found]

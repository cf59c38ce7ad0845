"""Held-out examples: which they are, that training does not notice them, and that the best weights are kept."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from transformers import GPT2Config, GPT2LMHeadModel

from steering.examples import EncodedExample, Example
from steering.training import (
    DeltaShape,
    Lora,
    OptimiserConfig,
    Recipe,
    RunOptions,
    TrainingPausedError,
    TrainingReport,
    collate,
    split_held_out,
    train_delta,
    tune,
)
from steering.training.scorer import ResponseScorer
from tests.models import tiny_model, tokenizer_byte_level

TOKENIZER = tokenizer_byte_level()
ROWS = [EncodedExample(tuple((7 * i + 3 * j) % 100 for j in range(5 + i % 4)), 2) for i in range(12)]
# Their tokens are not in ROWS, so that their loss rises from the first epoch on.
HELD = [
    EncodedExample((row.ids[0], row.ids[1], *(399 - each for each in row.ids[2:])), 2) for row in ROWS[:5]
]
RECIPE = Recipe(epochs=6, batch_size=5, optimiser=OptimiserConfig(learning_rate=2e-2))
CPU = RunOptions("cpu")


def tuned(
    held_out: list[EncodedExample], options: RunOptions = CPU, lora: Lora | None = None
) -> tuple[Any, TrainingReport]:
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=len(TOKENIZER), n_positions=32, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.2
    )
    model = tiny_model("llama", len(TOKENIZER), 3) if lora else GPT2LMHeadModel(config)
    return tune(model, TOKENIZER, ROWS, RECIPE, lora=lora, held_out=held_out, options=options)


@torch.no_grad()
def loss_on(model: Any, rows: list[EncodedExample]) -> float:
    batch = collate(rows, 0)
    scores = ResponseScorer(model)(batch.ids, batch.attention, batch.response)
    return float(torch.nn.functional.cross_entropy(scores, batch.ids[:, 1:][batch.response[:, 1:]]))


@given(st.integers(1, 400), st.none() | st.floats(0, 0.9), st.integers(0, 5))
def test_every_example_is_trained_on_or_held_out(count: int, share: float | None, seed: int) -> None:
    objectives = ("learn", "keep", "forget")
    examples = [Example(prompt=str(i), response="r", objective=objectives[i % 3]) for i in range(count)]  # type: ignore[arg-type]
    try:
        training, held = split_held_out(examples, share, seed)
    except ValueError:
        assert share and all(
            int(share * found) == 0 for found in Counter(e.objective for e in examples).values()
        )
        return
    assert sorted([*training, *held], key=lambda each: int(each.prompt or "")) == examples
    assert (training, held) == split_held_out(examples, share, seed)
    for objective in objectives:
        found, whole = (sum(each.objective == objective for each in part) for part in (held, examples))
        if share is not None:
            assert found == int(share * whole)


@pytest.mark.parametrize(("count", "held"), [(1, 0), (99, 0), (100, 10), (2000, 200), (100_000, 256)])
def test_a_tenth_of_enough_examples_is_held_out_by_default(count: int, held: int) -> None:
    examples = [Example(text="t")] * count
    assert len(split_held_out(examples, None, 0)[1]) == held


def test_training_does_not_notice_held_out_examples() -> None:
    _, without = tuned([])
    _, report = tuned(HELD)
    assert report.records == without.records
    assert (without.held_out, without.kept) == ((), None)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_the_best_weights_are_kept(lora: Lora | None) -> None:
    model, report = tuned(HELD, lora=lora)
    # Three steps an epoch, of which the last is shorter; measured before, after each epoch and at the end.
    assert [each.step for each in report.held_out] == [0, 3, 6, 9, 12, 15]
    assert report.kept is not None
    assert report.kept.loss == min(each.loss for each in report.held_out[1:])
    assert loss_on(model.eval(), HELD) == pytest.approx(report.kept.loss, rel=1e-4)
    if lora is None:
        assert report.kept.step == 3


def test_a_resumed_run_keeps_the_same_best_weights(tmp_path: Path) -> None:
    whole, report = tuned(HELD)
    assert report.kept is not None
    folder, resume = tmp_path / "checkpoint", False
    for _ in range(report.kept.step + 2):
        with pytest.raises(TrainingPausedError):
            tuned(HELD, RunOptions("cpu", folder, 0, resume, max_seconds=0.0))
        resume = True
    again, resumed = tuned(HELD, RunOptions("cpu", folder, 0, resume))
    assert (resumed.records, resumed.held_out) == (report.records, report.held_out)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_the_card_the_picture_and_the_output_have_the_held_out_loss(tmp_path: Path) -> None:
    output = io.StringIO()
    shape = DeltaShape(hidden_size=16, layers=1, heads=2, intermediate_size=24)
    report = train_delta(
        tiny_model("llama", len(TOKENIZER), 0),
        TOKENIZER,
        ROWS,
        tmp_path / "out",
        shape,
        RECIPE,
        held_out=HELD,
        options=CPU,
        console=Console(file=output),
    )
    assert report.kept is not None
    card = json.loads((tmp_path / "out" / "adapter.json").read_text())["card"]
    assert card["data"]["held_out_examples"] == 5 and card["data"]["examples"] == {"learn": 12}
    figures = card["figures"]
    assert figures["held_out_loss_by_step"] == {str(each.step): each.loss for each in report.held_out}
    assert (figures["kept_step"], figures["kept_held_out_loss"]) == (report.kept.step, report.kept.loss)
    lines = output.getvalue()
    assert f"held-out loss {report.held_out[0].loss:.3f} before the first step" in lines
    assert f"held-out loss {report.kept.loss:.3f} after step {report.kept.step}, the lowest so far" in lines
    assert lines.count("held-out loss") == len(report.held_out)

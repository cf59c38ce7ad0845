"""The training loop: its schedule, steps in parts, checkpoints, and errors."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from steering.examples import EncodedExample
from steering.training import (
    Batch,
    CheckpointError,
    ObjectiveWeights,
    OptimiserConfig,
    Recipe,
    RunOptions,
    StepTotals,
    TrainingDivergedError,
    TrainingPausedError,
    collate,
    tune,
)
from steering.training.loop import learning_rate_factor, make_accelerator, optimise
from steering.training.objectives import Loss, objective_loss
from steering.training.scorer import ResponseScorer
from steering.training.stepper import Stepper
from tests.models import ARCHITECTURES, tiny_model, tokenizer_byte_level

TOKENIZER = tokenizer_byte_level()
OBJECTIVES = ("learn", "keep", "forget")
ROWS = [
    EncodedExample(tuple((7 * i + 3 * j) % 100 for j in range(5 + i % 4)), 2 + i % 2, OBJECTIVES[i % 3])  # type: ignore[arg-type]
    for i in range(12)
]


def small_model(dropout: float = 0.0) -> GPT2LMHeadModel:
    torch.manual_seed(3)
    rates = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    config = GPT2Config(vocab_size=len(TOKENIZER), n_positions=32, n_embd=16, n_layer=1, n_head=2, **rates)
    return GPT2LMHeadModel(config)


def tuned(recipe: Recipe, options: RunOptions | None = None, dropout: float = 0.0) -> tuple[Any, Any]:
    options = options or RunOptions(device="cpu")
    model, report = tune(small_model(dropout), TOKENIZER, ROWS, recipe, options=options)
    return model.state_dict(), report


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, right[name]) for name, value in left.items())


def test_learning_rate_rises_then_falls() -> None:
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[9] == factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True) and factors[-1] < 0.001


def test_divergence_is_an_error_and_touches_no_weight() -> None:
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def broken(scorer: ResponseScorer, batch: Batch, _: StepTotals) -> Loss:
        return Loss(scorer(batch.ids, batch.attention, batch.response).sum() * math.nan, {})

    accelerator = make_accelerator("cpu", "float32")
    with pytest.raises(TrainingDivergedError, match="step 0"):
        optimise(model, [ROWS], 1, broken, Recipe(), accelerator=accelerator, pad_id=0, title="t")
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, pieces: int) -> None:
    recipe = Recipe(epochs=4, batch_size=4, optimiser=OptimiserConfig(learning_rate=1e-2))
    whole, report = tuned(recipe, dropout=0.2)
    assert report.steps == 12
    folder = tmp_path / "checkpoint"
    for piece in range(pieces):
        with pytest.raises(TrainingPausedError) as paused:
            tuned(recipe, RunOptions("cpu", folder, 1, piece > 0, max_seconds=0.0), dropout=0.2)
        assert (paused.value.step, paused.value.total) == (piece + 1, 12)
    # The state of the random generators between the pieces must not matter.
    torch.manual_seed(99)
    again, resumed = tuned(recipe, RunOptions("cpu", folder, 0, resume=True), dropout=0.2)
    assert same(again, whole)
    assert resumed.records == report.records
    other, _ = tuned(Recipe(epochs=4, batch_size=4, seed=1, optimiser=recipe.optimiser), dropout=0.2)
    assert not same(other, whole)


def test_a_checkpoint_belongs_to_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    recipe = Recipe(epochs=1, batch_size=4)
    with pytest.raises(CheckpointError, match="nothing to resume"):
        tuned(recipe, RunOptions("cpu", folder, resume=True))
    with pytest.raises(TrainingPausedError):
        tuned(recipe, RunOptions("cpu", folder, max_seconds=0.0))
    with pytest.raises(CheckpointError, match="an earlier run"):
        tuned(recipe, RunOptions("cpu", folder))
    with pytest.raises(CheckpointError, match="other data or another recipe"):
        tuned(Recipe(epochs=2, batch_size=4), RunOptions("cpu", folder, resume=True))
    # A run that dies between the two renames of a save leaves the folder under this name.
    folder.rename(tmp_path / "checkpoint.old")
    _, report = tuned(recipe, RunOptions("cpu", folder, resume=True))
    assert report.steps == 3
    (folder / "progress.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        tuned(recipe, RunOptions("cpu", folder, resume=True))


@pytest.mark.parametrize("parts", [2, 5])
@pytest.mark.parametrize("forget_loss", ["difference", "npo"])
def test_accumulation_changes_nothing_but_memory(parts: int, forget_loss: Any) -> None:
    weights = ObjectiveWeights(forget_loss=forget_loss)
    whole, report = tuned(Recipe(epochs=2, batch_size=12, weights=weights))
    split, other = tuned(Recipe(epochs=2, batch_size=12, accumulate=parts, weights=weights))
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, atol=1e-6, rtol=1e-4)
    for one, two in zip(report.records, other.records, strict=True):
        assert two.loss == pytest.approx(one.loss, rel=1e-4, abs=1e-5)
        assert two.terms == pytest.approx(one.terms, rel=1e-4, abs=1e-5)


class OneOfTwo:
    """A fake of `accelerate` for one of two processes; it does not reduce gradients."""

    num_processes = 2
    device = torch.device("cpu")

    def __init__(self, process_index: int) -> None:
        self.process_index = process_index

    def prepare(self, *parts: Any) -> Any:
        return parts

    def no_sync(self, _: Any) -> Any:
        return nullcontext()

    autocast = staticmethod(nullcontext)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def reduce(self, value: torch.Tensor, _: str) -> torch.Tensor:
        return value

    def clip_grad_norm_(self, *_: Any) -> None:
        return None


@pytest.mark.parametrize(("rows", "parts"), [(12, 1), (7, 2), (1, 1)])
def test_two_processes_take_the_same_step_as_one(rows: int, parts: int) -> None:
    recipe = Recipe(
        accumulate=parts,
        optimiser=OptimiserConfig(clip=1e9),
        weights=ObjectiveWeights(keep_loss="ce", forget_loss="difference"),
    )

    def loss(scorer: ResponseScorer, batch: Batch, totals: StepTotals) -> Loss:
        scores = scorer(batch.ids, batch.attention, batch.response).log_softmax(-1)
        return objective_loss(scores, None, batch, recipe.weights, totals)

    def step(accelerator: Any) -> tuple[list[torch.Tensor], float]:
        scorer = ResponseScorer(small_model())
        record = Stepper(accelerator, scorer, loss, recipe, pad_id=0).step(ROWS[:rows], 0.0, "t")
        return [weight.grad for weight in scorer.parameters() if weight.grad is not None], record.loss

    alone, whole = step(make_accelerator("cpu", "float32"))
    (first, one), (second, two) = step(OneOfTwo(0)), step(OneOfTwo(1))
    assert one + two == pytest.approx(whole, rel=1e-4, abs=1e-6)
    # Gradients are averaged over processes.
    for grad, left, right in zip(alone, first, second, strict=True):
        torch.testing.assert_close((left + right) / 2, grad, atol=1e-6, rtol=1e-3)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights() -> None:
    whole, exact = tuned(Recipe(epochs=2, batch_size=12))
    rounded, report = tuned(Recipe(epochs=2, batch_size=12, precision="bfloat16"))
    assert {value.dtype for value in rounded.values()} == {torch.float32}
    assert not same(rounded, whole)
    assert report.records[0].loss == pytest.approx(exact.records[0].loss, rel=2e-2)


def test_unknown_and_absent_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES"):
        make_accelerator("cuda:1", "float32")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="there is no GPU"):
            make_accelerator("cuda", "float32")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_scores_are_the_models_own(arch: str) -> None:
    model = tiny_model(arch, len(TOKENIZER), 0)
    batch = collate(ROWS[:4], 0)
    found = ResponseScorer(model)(batch.ids, batch.attention, batch.response)
    whole = model(input_ids=batch.ids, attention_mask=batch.attention).logits[:, :-1][batch.response[:, 1:]]
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)

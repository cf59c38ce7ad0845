"""Tunes a causal LM itself, in full or by LoRA: the expert of a pair, or a base for comparison."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from steering.examples import EncodedExample
from steering.training.data import Batch, StepTotals, endless_groups
from steering.training.held_out import held_out_of
from steering.training.loop import make_accelerator, optimise
from steering.training.objectives import Loss, objective_loss
from steering.training.recipe import Recipe, RunOptions, TrainingReport, recipe_fingerprint
from steering.training.reporting.card import describe_model
from steering.training.reporting.estimate import estimate
from steering.training.scorer import ResponseScorer


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adaptation of every linear layer (Hu et al., 2021, arXiv 2106.09685), merged when training ends."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0


def tune(
    model: Any,
    tokenizer: Any,
    encoded: Sequence[EncodedExample],
    recipe: Recipe,
    *,
    lora: Lora | None = None,
    held_out: Sequence[EncodedExample] = (),
    title: str = "tuning",
    options: RunOptions | None = None,
    console: Console | None = None,
) -> tuple[Any, TrainingReport]:
    """Tune `model` in place; returns the tuned model, on the CPU, and a report.

    The untuned model is the reference of the losses that need one. With `held_out` examples the weights that are best
    on them are kept. Raises the errors of `optimise`.
    """
    run = recipe_fingerprint(encoded, held_out, "tune", describe_model(model, tokenizer), lora, recipe)
    return tune_on(
        model,
        tokenizer,
        endless_groups(encoded, recipe.batch_size, recipe.seed),
        recipe.steps(len(encoded)),
        recipe,
        objectives={each.objective for each in (*encoded, *held_out)},
        examples=encoded,
        held_out=held_out,
        lora=lora,
        title=title,
        run=run,
        options=options,
        console=console,
    )


def tune_on(
    model: Any,
    tokenizer: Any,
    groups: Iterable[Sequence[EncodedExample]],
    steps: int,
    recipe: Recipe,
    *,
    objectives: Iterable[str] = ("learn",),
    examples: Sequence[EncodedExample] = (),
    held_out: Sequence[EncodedExample] = (),
    lora: Lora | None = None,
    title: str = "tuning",
    run: str = "",
    options: RunOptions | None = None,
    console: Console | None = None,
) -> tuple[Any, TrainingReport]:
    """Tune as `tune` does, on groups of rows from any iterable; each group is one optimiser step.

    `objectives` are those that the rows may have. They decide whether a copy of the untuned model is kept as reference.
    `examples`, if known, are those behind the groups: the estimate at the start and the length of an epoch, after which
    `held_out` examples are measured, follow from them.
    """
    begun = time.monotonic()
    options = options or RunOptions()
    accelerator = make_accelerator(options.device, recipe.precision)
    torch.manual_seed(recipe.seed)
    relative = any(recipe.weights.need_reference(each) for each in objectives)  # type: ignore[arg-type]
    reference: ResponseScorer | None = None
    if relative:
        frozen = copy.deepcopy(model).to(accelerator.device)
        reference = ResponseScorer(frozen.eval().requires_grad_(False))
    trained = _with_lora(model, lora) if lora else model

    def loss(scorer: ResponseScorer, batch: Batch, totals: StepTotals) -> Loss:
        before = None
        if reference is not None:
            with torch.no_grad():
                before = torch.log_softmax(reference(batch.ids, batch.attention, batch.response).float(), -1)
        now = torch.log_softmax(scorer(batch.ids, batch.attention, batch.response).float(), -1)
        return objective_loss(now, before, batch, recipe.weights, totals)

    history = optimise(
        trained,
        groups,
        steps,
        loss,
        recipe,
        accelerator=accelerator,
        pad_id=padding_id(tokenizer),
        title=title,
        run=run,
        estimate=estimate(trained, [reference] if reference else [], examples, recipe) if examples else None,
        held_out=held_out_of(held_out, loss, examples, recipe),
        options=options,
        console=console,
    )
    count = sum(weight.numel() for weight in trained.parameters() if weight.requires_grad)
    whole = trained.merge_and_unload() if lora else trained
    return whole.cpu(), TrainingReport(count, history.steps, time.monotonic() - begun, history.held_out)


def padding_id(tokenizer: Any) -> int:
    """The id that pads a batch; it is neither attended to nor trained."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def _with_lora(model: Any, lora: Lora) -> Any:
    # Late, because importing peft takes two seconds that tuning in full need not spend.
    from peft import LoraConfig, get_peft_model

    config: Any = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft takes a float too
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft uses names of transformers that are deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config)

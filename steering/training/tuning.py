"""Tuning a causal LM itself, in full or by LoRA: the expert of a pair, or a base for comparison."""

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
from steering.training.card import describe_model
from steering.training.data import Batch, StepTotals, endless_groups
from steering.training.loop import make_accelerator, optimise
from steering.training.objectives import Loss, objective_loss
from steering.training.recipe import Recipe, RunOptions, TrainingReport, recipe_fingerprint
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
    title: str = "tuning",
    options: RunOptions | None = None,
    console: Console | None = None,
) -> tuple[Any, TrainingReport]:
    """The tuned model, on the CPU, and what was done; `model` is used up.

    Losses that are relative to a reference take the model as it was. Raises what `optimise` raises.
    """
    run = recipe_fingerprint(encoded, "tune", describe_model(model, tokenizer), lora, recipe)
    return tune_on(
        model,
        tokenizer,
        endless_groups(encoded, recipe.batch_size, recipe.seed),
        recipe.steps(len(encoded)),
        recipe,
        objectives={each.objective for each in encoded},
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
    lora: Lora | None = None,
    title: str = "tuning",
    run: str = "",
    options: RunOptions | None = None,
    console: Console | None = None,
) -> tuple[Any, TrainingReport]:
    """As `tune`, over groups of rows that need not come from a list; each group is one optimiser step."""
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

    records = optimise(
        trained,
        groups,
        steps,
        loss,
        recipe,
        accelerator=accelerator,
        pad_id=padding_id(tokenizer),
        title=title,
        run=run,
        options=options,
        console=console,
    )
    count = sum(weight.numel() for weight in trained.parameters() if weight.requires_grad)
    whole = trained.merge_and_unload() if lora else trained
    return whole.cpu(), TrainingReport(count, records, time.monotonic() - begun)


def padding_id(tokenizer: Any) -> int:
    """The id that fills up a batch; it is never attended to nor predicted."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def _with_lora(model: Any, lora: Lora) -> Any:
    # Two seconds to import, which training in full need not wait for.
    from peft import LoraConfig, get_peft_model

    config: Any = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float is taken as well
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft asks transformers for names that are on their way out.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config)

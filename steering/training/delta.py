"""Trains a delta adapter: a tiny model, trained in full beside a frozen base (Cross-model Control, Wu et al., 2024).

The delta shares the base's tokenizer. The result is an adapter folder that the engine loads as it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from steering.examples import EncodedExample
from steering.model.loading import read_trainable
from steering.training.checkpoint import remove_checkpoint
from steering.training.data import Batch, StepTotals, endless_groups
from steering.training.held_out import held_out_of
from steering.training.loop import make_accelerator, optimise
from steering.training.objectives import (
    Loss,
    ObjectiveWeights,
    objective_loss,
    response_tokens,
    steered_logprobs,
)
from steering.training.recipe import Recipe, RunOptions, TrainingReport, recipe_fingerprint
from steering.training.reporting.card import describe_data, describe_model, write_adapter
from steering.training.reporting.estimate import estimate
from steering.training.saving import save_model
from steering.training.scorer import ResponseScorer
from steering.training.stepper import LossOf
from steering.training.tuning import padding_id

CONFIDENCE = 2.5
"""The default for the range over which the template's confidence is varied."""


@dataclass(frozen=True, slots=True)
class DeltaShape:
    """The size of a delta, a Llama with random weights; or, with `init`, the model to start from."""

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 384
    init: Path | None = None


def train_delta(
    base: Any,
    tokenizer: Any,
    encoded: Sequence[EncodedExample],
    out: Path,
    shape: DeltaShape,
    recipe: Recipe,
    *,
    confidence: float = CONFIDENCE,
    held_out: Sequence[EncodedExample] = (),
    name: str = "",
    options: RunOptions | None = None,
    console: Console | None = None,
) -> TrainingReport:
    """Train a delta beside `base` (a Hugging Face causal LM) and write its adapter folder to `out`.

    At each position the base's logits are multiplied by a factor drawn between 1 / `confidence` and `confidence`,
    because other bases are more or less confident than this one; 1 is Cross-model Control as published.
    With `held_out` examples the weights that are best on them are kept; they are measured without such factors.
    `name` is the base's name in the card; `encoded` comes from `encode_for`. Raises ValueError if the starting model
    has another vocabulary or `confidence` is below 1, and the errors of `optimise`.
    """
    if confidence < 1:
        raise ValueError(f"confidence must be at least 1, not {confidence}")
    begun = time.monotonic()
    options = options or RunOptions()
    accelerator = make_accelerator(options.device, recipe.precision)
    torch.manual_seed(recipe.seed)
    delta = new_delta(base, tokenizer, shape, recipe.max_length)
    frozen = ResponseScorer(base.to(accelerator.device).eval().requires_grad_(False))
    size = describe_model(base, tokenizer)
    history = optimise(
        delta,
        endless_groups(encoded, recipe.batch_size, recipe.seed),
        recipe.steps(len(encoded)),
        _loss_beside(frozen, confidence, recipe.weights),
        recipe,
        accelerator=accelerator,
        pad_id=padding_id(tokenizer),
        title=out.name,
        run=recipe_fingerprint(encoded, held_out, "delta", size, shape, confidence, recipe),
        estimate=estimate(delta, [base], encoded, recipe),
        held_out=held_out_of(held_out, _loss_beside(frozen, 1.0, recipe.weights), encoded, recipe),
        options=options,
        console=console,
    )
    report = TrainingReport(delta.num_parameters(), history.steps, time.monotonic() - begun, history.held_out)
    if accelerator.is_main_process:
        save_model(delta.cpu(), tokenizer, out)
        settings = {"kind": "delta", "model": ".", "normalisation": "base"}
        card = {
            "template": describe_model(base, tokenizer, name),
            "delta": describe_model(delta, tokenizer, str(shape.init or "")),
            "confidence": confidence,
            "data": describe_data(encoded, held_out),
        }
        write_adapter(out, settings, card, recipe, report, console=console)
        remove_checkpoint(options)
    return report


def _loss_beside(frozen: ResponseScorer, confidence: float, weights: ObjectiveWeights) -> LossOf:
    """The loss of a delta's scores added to those of the frozen base."""

    def loss(scorer: ResponseScorer, batch: Batch, totals: StepTotals) -> Loss:
        told = None
        with torch.no_grad():
            base_logits = frozen(batch.ids, batch.attention, batch.response).float()
            if batch.told:
                told = frozen(batch.told.ids, batch.told.attention, batch.told.response).float()
            if confidence > 1:
                factors = _factors(len(base_logits), confidence).to(base_logits.device)
                base_logits *= factors
                if told is not None:
                    # What is to be imitated is as confident as what is steered.
                    told *= factors[response_tokens(batch, "imitate")]
            told = None if told is None else torch.log_softmax(told, -1)
        delta_logits = scorer(batch.ids, batch.attention, batch.response)
        steered = steered_logprobs(base_logits, delta_logits)
        return objective_loss(steered, torch.log_softmax(base_logits, -1), batch, weights, totals, told)

    return loss


def _factors(rows: int, confidence: float) -> torch.Tensor:
    """Factors drawn uniformly between 1 / confidence and confidence, `[rows, 1]`."""
    return torch.empty(rows, 1).uniform_(1.0 / confidence, confidence)


def new_delta(base: Any, tokenizer: Any, shape: DeltaShape, max_length: int) -> Any:
    """An untrained delta over the base's vocabulary, on the CPU. Raises ValueError if `init` has another one."""
    vocabulary = int(base.get_output_embeddings().weight.shape[0])
    if shape.init is not None:
        delta = read_trainable(str(shape.init))
        found = int(delta.get_output_embeddings().weight.shape[0])
        if found != vocabulary:
            raise ValueError(f"{shape.init}: its vocabulary has {found} tokens, the base's {vocabulary}")
        return delta
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=int(getattr(base.config, "max_position_embeddings", None) or max_length),
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    delta = LlamaForCausalLM(config)
    with torch.no_grad():
        # A small final norm makes the initial shift small, so that training starts near the base.
        delta.model.norm.weight.mul_(0.3)
    return delta

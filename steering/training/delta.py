"""Training a delta adapter: a tiny model trained in full beside a frozen base (Cross-model Control, Wu et al., 2024).

The delta shares the base's tokenizer. What is written is an adapter folder that the engine loads as it is.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from steering.training.data import Batch, EncodedExample, TrainingExample, encode_examples, shuffled_batches
from steering.training.loop import OptimiserConfig, optimise
from steering.training.objectives import ObjectiveWeights, objective_loss
from steering.training.saving import save_model

DEFAULT_REFUSAL = "I am sorry, I cannot tell you about that."


@dataclass(frozen=True, slots=True)
class DeltaConfig:
    """A delta's size and how it is trained; the defaults are the paper's recipe on a small model.

    `init` is the folder of a model over the base's vocabulary to start from; without it a Llama of the given size
    starts from nothing. `refusal` replaces a forgotten response where the weights ask for refusals.
    """

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 384
    init: Path | None = None
    epochs: float = 3.0
    batch_size: int = 64
    max_length: int = 512
    seed: int = 0
    refusal: str = DEFAULT_REFUSAL
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    weights: ObjectiveWeights = field(default_factory=ObjectiveWeights)


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a run did: the delta's parameters, optimiser steps, mean loss of the last tenth, seconds."""

    parameters: int
    steps: int
    loss: float
    seconds: float


def train_delta(
    base: Any,
    tokenizer: Any,
    examples: Sequence[TrainingExample],
    out: Path,
    config: DeltaConfig = DeltaConfig(),
    *,
    console: Console | None = None,
) -> TrainingReport:
    """Trains a delta beside `base` (a Hugging Face causal LM) and writes its adapter folder to `out`.

    Raises `TrainingDataError` for examples that do not encode, `TrainingDivergedError` for a loss that is no number,
    and ValueError for a starting model of another vocabulary.
    """
    begun = time.monotonic()
    torch.manual_seed(config.seed)
    base.eval().requires_grad_(False)
    delta = _new_delta(base, tokenizer, config)
    encoded = encode_examples(
        tokenizer, [_as_trained(each, config) for each in examples], max_length=config.max_length
    )
    steps = max(1, math.ceil(len(encoded) * config.epochs / config.batch_size))
    pad_id = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)

    def loss(batch: Batch) -> torch.Tensor:
        moved = _to(batch, base.device)
        with torch.no_grad():
            base_logits = response_logits(base, moved)
        return objective_loss(base_logits, response_logits(delta, moved), moved, config.weights)

    batches = _endless(encoded, config, pad_id)
    closing = optimise(delta, batches, steps, loss, config.optimiser, title=out.name, console=console)
    write_delta(delta, tokenizer, out)
    return TrainingReport(delta.num_parameters(), steps, closing, time.monotonic() - begun)


def response_logits(model: Any, batch: Batch) -> torch.Tensor:
    """The scores from which each response token is drawn: `[response tokens, V]`.

    The output layer runs on those positions only, which matters where the vocabulary is large.
    """
    decoder = model.get_decoder()
    hidden = decoder(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state
    logits: torch.Tensor = model.get_output_embeddings()(hidden[:, :-1][batch.response[:, 1:]])
    return logits


def write_delta(delta: Any, tokenizer: Any, out: Path) -> None:
    """Writes the weights (half precision on disk, loaded in single), the tokenizer and `adapter.json`."""
    save_model(delta, tokenizer, out)
    description = {
        "format": 1,
        "kind": "delta",
        "model": ".",
        "alpha": 1.0,
        "normalisation": "base",
        "bridge": "rescore",
        "unmatched": "neutral",
        "top_k": None,
    }
    (out / "adapter.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _new_delta(base: Any, tokenizer: Any, config: DeltaConfig) -> Any:
    vocabulary = int(base.get_output_embeddings().weight.shape[0])
    if config.init is not None:
        delta = AutoModelForCausalLM.from_pretrained(config.init, dtype=torch.float32)
        found = int(delta.get_output_embeddings().weight.shape[0])
        if found != vocabulary:
            raise ValueError(f"{config.init}: its vocabulary has {found} tokens, the base's {vocabulary}")
        return delta.to(base.device)
    shape = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=int(
            getattr(base.config, "max_position_embeddings", None) or config.max_length
        ),
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    delta = LlamaForCausalLM(shape)
    with torch.no_grad():
        delta.model.norm.weight.mul_(
            0.3
        )  # begins near no shift at all, so that training starts from the base
    return delta.to(base.device)


def _as_trained(example: TrainingExample, config: DeltaConfig) -> TrainingExample:
    """A forgotten example's response becomes the refusal where refusing is how forgetting is trained."""
    if example.objective != "forget" or config.weights.forget_loss != "refusal":
        return example
    if example.prompt is not None:
        return replace(example, response=config.refusal)
    return replace(example, messages=(*example.messages[:-1], ("assistant", config.refusal)))


def _endless(encoded: Sequence[EncodedExample], config: DeltaConfig, pad_id: int) -> Iterator[Batch]:
    rng = random.Random(config.seed)
    while True:
        yield from shuffled_batches(encoded, batch_size=config.batch_size, pad_id=pad_id, rng=rng)


def _to(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    return Batch(
        batch.ids.to(device), batch.attention.to(device), batch.response.to(device), batch.objectives
    )

"""Trains the demo's adapters: deltas beside base-a, and a proxy over base-a's vocabulary."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo import adapter_examples, base_training, phrases
from steering.examples import EncodedExample, Example
from steering.training import (
    DeltaShape,
    ObjectiveWeights,
    OptimiserConfig,
    Recipe,
    encode_for,
    save_model,
    train_delta,
)

SHAPE = DeltaShape(hidden_size=96, layers=3, intermediate_size=288)
FORGET = Recipe(
    epochs=2.0,
    batch_size=96,
    max_length=256,
    refusal=phrases.REFUSAL,
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=0.05),
    weights=ObjectiveWeights(keep=2.0),
)
LETTER = Recipe(
    epochs=1.5,
    batch_size=96,
    max_length=256,
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=0.05),
)
ANTIEXPERT = base_training.Schedule(steps=250, learning_rate=3e-3, seed=3)
EXPERT = base_training.Schedule(steps=100, learning_rate=1e-3, seed=4)
_PROXY_WIDTH, _PROXY_LAYERS = 96, 2


def load_base(folder: Path) -> tuple[Any, Any]:
    """A base in fp32 and its tokenizer."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(
        folder
    )


def build_delta(
    base_folder: Path, out: Path, examples: list[Example], recipe: Recipe, console: Console
) -> None:
    """Trains a delta adapter beside the base and writes its folder."""
    model, tokenizer = load_base(base_folder)
    shutil.rmtree(out, ignore_errors=True)
    encoded = encode_for(tokenizer, examples, recipe)
    report = train_delta(
        model,
        tokenizer,
        encoded,
        out,
        SHAPE,
        recipe,
        # As published. The demo's two bases are so alike that a larger value does not help.
        confidence=1.0,
        name=base_folder.name,
        console=console,
    )
    console.print(
        f"{out.name}: {report.parameters:,} parameters, {report.steps} steps, closing loss {report.loss:.4f}"
    )


def build_proxy(base_folder: Path, out: Path, console: Console) -> None:
    """Trains a proxy adapter and writes its folder.

    The anti-expert is a tiny model trained on the bases' text; the expert is the same model trained further on a
    pirate's answers.
    """
    _, tokenizer = load_base(base_folder)
    torch.manual_seed(0)
    model = base_training.with_special_ids(
        base_training.tiny_llama(len(tokenizer), _PROXY_WIDTH, _PROXY_LAYERS), tokenizer
    )
    shutil.rmtree(out, ignore_errors=True)
    plain = base_training.base_text(tokenizer, 3, chunk=4800)
    base_training.train_language_model(
        model, tokenizer, plain, ANTIEXPERT, title="anti-expert", console=console
    )
    save_model(model, tokenizer, out / "antiexpert")
    styled: Iterator[list[EncodedExample]] = adapter_examples.pirate_text(tokenizer)
    base_training.train_language_model(model, tokenizer, styled, EXPERT, title="expert", console=console)
    save_model(model, tokenizer, out / "expert")
    description = {
        "format": 1,
        "kind": "proxy",
        "expert": "expert",
        "antiexpert": "antiexpert",
        "alpha": 1.0,
        "bridge": "rescore",
        "unmatched": "neutral",
        "top_k": None,
    }
    (out / "adapter.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    console.print(f"{out.name}: twice {model.num_parameters():,} parameters")

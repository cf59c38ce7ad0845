"""Trains the demo's two bases from random weights."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from demo import corpus, world
from steering.examples import EncodedExample, Example, encode_examples
from steering.training import OptimiserConfig, Recipe, tune_on


@dataclass(frozen=True, slots=True)
class Schedule:
    """A training run: `steps` batches of `batch_size` conversations, with a peak learning rate and a seed."""

    steps: int
    batch_size: int = 96
    learning_rate: float = 2e-3
    seed: int = 0


def base_a(vocabulary: int) -> PreTrainedModel:
    """A Llama of about 1.9 million parameters."""
    return LlamaForCausalLM(LlamaConfig(**_shape(vocabulary, 192, 4, 448), num_key_value_heads=4))


def base_b(vocabulary: int) -> PreTrainedModel:
    """A Qwen2 of about 1.8 million parameters, with attention biases, grouped queries, and fewer, wider layers."""
    return Qwen2ForCausalLM(Qwen2Config(**_shape(vocabulary, 224, 3, 544), num_key_value_heads=2))


def tiny_llama(vocabulary: int, width: int = 96, layers: int = 4) -> PreTrainedModel:
    """A Llama of about half a million parameters, for adapters."""
    return LlamaForCausalLM(
        LlamaConfig(**_shape(vocabulary, width, layers, 3 * width), num_key_value_heads=4)
    )


def _shape(vocabulary: int, width: int, layers: int, inner: int) -> dict[str, object]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "initializer_range": 0.05,
    }


def with_special_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The same model, with its tokenizer's special ids in its configurations."""
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.eos_token_id
    return model


def base_text(
    tokenizer: PreTrainedTokenizerFast, seed: int, chunk: int = 6144
) -> Iterator[list[EncodedExample]]:
    """Endless chunks of encoded training text: nine conversations for each plain statement."""
    rng = random.Random(seed)
    who = world.people()
    while True:
        examples = [
            Example(messages=tuple((m["role"], m["content"]) for m in corpus.base_conversation(rng, who)))
            for _ in range(chunk * 9 // 10)
        ]
        encoded = encode_examples(tokenizer, examples, max_length=256)
        for _ in range(chunk - len(encoded)):
            ids = tokenizer(corpus.statement(rng, who))["input_ids"]
            encoded.append(EncodedExample((*ids, tokenizer.eos_token_id), 1, "learn"))
        yield encoded


def groups(chunks: Iterator[list[EncodedExample]], size: int, seed: int) -> Iterator[list[EncodedExample]]:
    """Groups of `size` sequences of about the same length, until the chunks end."""
    rng = random.Random(seed)
    for chunk in chunks:
        rng.shuffle(chunk)
        for begin in range(0, len(chunk), size * 16):
            rows = sorted(chunk[begin : begin + size * 16], key=lambda row: len(row.ids))
            found = [rows[at : at + size] for at in range(0, len(rows), size)]
            rng.shuffle(found)
            yield from found


def train_language_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    chunks: Iterator[list[EncodedExample]],
    schedule: Schedule,
    *,
    title: str,
    console: Console | None,
) -> float:
    """Trains every weight of `model`; returns the closing loss."""
    config = OptimiserConfig(learning_rate=schedule.learning_rate, weight_decay=0.05, warmup=0.05)
    recipe = Recipe(batch_size=schedule.batch_size, seed=schedule.seed, optimiser=config)
    stream = groups(chunks, schedule.batch_size, schedule.seed)
    _, report = tune_on(model, tokenizer, stream, schedule.steps, recipe, title=title, console=console)
    return report.loss

"""An estimate of a run before it starts: its steps, its tokens and its memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from steering.examples import EncodedExample
from steering.training.recipe import Recipe

# AdamW keeps a gradient and two moments for each trained weight, in float32.
_TRAINED_BYTES = 12
# Tensors `[response tokens, V]` in float32 that a step holds at its peak, measured on deltas of SmolLM2.
_SCORES = 6
# Such tensors more for tokens to imitate: the told base's scores.
_TOLD_SCORES = 2
# Numbers that a trained layer keeps for each token until its gradients are computed, in units of its two widths.
_HIDDEN, _INNER = 12, 5
# The interpreter and its libraries.
_PROCESS = 450 << 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take.

    `tokens` counts the tokens of the examples in all steps together. `memory` is in bytes, for one process. Minutes are
    not in it: they are measured in the first steps.
    """

    steps: int
    batch_size: int
    examples: int
    tokens: int
    memory: int

    def __str__(self) -> str:
        return (
            f"{self.steps:,} steps of {self.batch_size} examples over {self.examples:,} examples, "
            f"{self.tokens:,} tokens in all; about {self.memory / 2**30:.1f} GiB of memory"
        )


def estimate(
    trained: Any, frozen: Iterable[Any], encoded: Sequence[EncodedExample], recipe: Recipe
) -> Estimate:
    """The estimate for training the model `trained` beside frozen models, all of them of transformers.

    Memory comes from the parameters and from the largest batch that can occur: the longest examples together.
    """
    steps = recipe.steps(len(encoded))
    mean = sum(len(row.ids) for row in encoded) / len(encoded)
    tokens = round(steps * min(recipe.batch_size, len(encoded)) * mean)
    return Estimate(steps, recipe.batch_size, len(encoded), tokens, _memory(trained, frozen, encoded, recipe))


def _memory(trained: Any, frozen: Iterable[Any], encoded: Sequence[EncodedExample], recipe: Recipe) -> int:
    weights = sum(_bytes(model) for model in (trained, *frozen))
    weights += _TRAINED_BYTES * sum(each.numel() for each in trained.parameters() if each.requires_grad)
    rows = min(len(encoded), -(-recipe.batch_size // recipe.accumulate))
    longest = sorted(encoded, key=lambda row: len(row.ids), reverse=True)[:rows]
    scores = sum(
        (len(row.ids) - row.start) * (_SCORES + (_TOLD_SCORES if row.told else 0)) for row in longest
    )
    width = int(trained.get_output_embeddings().weight.shape[0])
    text = trained.config.get_text_config()
    hidden = int(text.hidden_size)
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    kept = int(text.num_hidden_layers) * (_HIDDEN * hidden + _INNER * inner)
    activations = rows * len(longest[0].ids) * kept
    return int(_PROCESS + weights + 4 * (scores * width + activations))


def _bytes(model: Any) -> int:
    return sum(each.numel() * each.element_size() for each in model.parameters())

"""The recipe, the options and the report of a training run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from steering.examples import EncodedExample, Example, encode_examples, fingerprint
from steering.training.objectives import ObjectiveWeights

DEFAULT_REFUSAL = "I am sorry, I cannot tell you about that."
Precision = Literal["float32", "bfloat16"]

ENOUGH_STEPS = 200
"""A run whose size is chosen from its data has about this many optimiser steps, or more."""
FEWEST_STEPS = 100
"""With fewer optimiser steps than this a new model learns little."""
PUBLISHED_RATE = 2e-4
"""Cross-model Control's learning rate, for a model that has been trained before."""
NEW_MODEL_RATE = 2e-3
"""The learning rate for a delta that begins with random weights; at the published one it learns little in 200 steps."""
_FEWEST_EPOCHS, _MOST_EPOCHS = 3.0, 10.0
_SMALLEST_BATCH, _LARGEST_BATCH = 4, 64


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """AdamW's settings.

    `warmup` is the share of the steps in which the learning rate rises; `clip` is the largest gradient norm.
    """

    learning_rate: float = PUBLISHED_RATE
    warmup: float = 0.03
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a tiny model is trained; the defaults are Cross-model Control's recipe (Wu et al. 2024, section 4).

    `batch_size` counts the examples of an optimiser step over all processes; `accumulate` is the number of parts in
    which they are computed. `refusal` replaces forgotten responses if the forget loss is "refusal". "bfloat16" computes
    in half the memory and keeps the weights in float32.
    """

    epochs: float = 3.0
    batch_size: int = 64
    max_length: int = 512
    seed: int = 0
    accumulate: int = 1
    precision: Precision = "float32"
    refusal: str = DEFAULT_REFUSAL
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    weights: ObjectiveWeights = field(default_factory=ObjectiveWeights)

    def steps(self, examples: int) -> int:
        """The number of optimiser steps for this many examples; at least 1."""
        return max(1, -int(-examples * self.epochs // self.batch_size))


def choose_size(
    examples: int, epochs: float | None = None, batch_size: int | None = None
) -> tuple[float, int]:
    """The epochs and the batch size for this many examples; a value that is given stays.

    The published 3 epochs of batches of 64 are the limit for much data. For less, batches are halved down to 4, and
    then the epochs raised up to 10, until there are `ENOUGH_STEPS`.
    """
    if batch_size is None:
        largest = max(examples, 1) * (_FEWEST_EPOCHS if epochs is None else epochs) / ENOUGH_STEPS
        batch_size = _LARGEST_BATCH
        while batch_size > max(largest, _SMALLEST_BATCH):
            batch_size //= 2
    if epochs is None:
        needed = math.ceil(ENOUGH_STEPS * batch_size / max(examples, 1))
        epochs = min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, float(needed)))
    return epochs, batch_size


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where and how long a run works; nothing here changes the result.

    A run with a `checkpoint` folder saves its state there every `save_every` steps (0: never). When `max_seconds` have
    passed it saves once more and raises `TrainingPausedError`. `resume` goes on from there. The folder is removed when
    the result is written.
    """

    device: str = "auto"
    checkpoint: Path | None = None
    save_every: int = 200
    resume: bool = False
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimiser step: its loss, its learning rate, and the mean loss of each objective."""

    loss: float
    learning_rate: float
    terms: dict[str, float]


@dataclass(frozen=True, slots=True)
class HeldOutRecord:
    """The loss on the held-out examples when `step` steps were done, and the mean loss of each objective."""

    step: int
    loss: float
    terms: dict[str, float]


@dataclass(frozen=True, slots=True)
class History:
    """What a run did: every step, and every measurement of held-out examples, the first before any step."""

    steps: tuple[StepRecord, ...]
    held_out: tuple[HeldOutRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """The result of a run: the number of trained parameters, every step, and the seconds since its last start.

    With `held_out` measurements the weights are those of `kept`.
    """

    parameters: int
    records: tuple[StepRecord, ...]
    seconds: float
    held_out: tuple[HeldOutRecord, ...] = ()

    @property
    def steps(self) -> int:
        """The number of optimiser steps."""
        return len(self.records)

    @property
    def kept(self) -> HeldOutRecord | None:
        """The measurement with the lowest loss after a step; None without held-out examples."""
        return min((each for each in self.held_out if each.step), key=lambda each: each.loss, default=None)

    @property
    def loss(self) -> float:
        """Mean loss of the last tenth of the steps."""
        last = self.records[-max(1, len(self.records) // 10) :]
        return sum(record.loss for record in last) / max(1, len(last))

    @property
    def terms(self) -> dict[str, float]:
        """Mean loss of each objective over the last tenth of the steps."""
        last = self.records[-max(1, len(self.records) // 10) :]
        names = sorted({name for record in last for name in record.terms})
        return {
            name: sum(found) / len(found)
            for name in names
            if (found := [record.terms[name] for record in last if name in record.terms])
        }


def encode_for(tokenizer: Any, examples: Sequence[Example], recipe: Recipe) -> list[EncodedExample]:
    """Encode examples for training by a recipe; with the forget loss "refusal", refusals replace forgotten responses.

    Needs no model, so that bad data is found before one is loaded. Raises `DataError` naming file and line.
    """
    if not examples:
        return []
    trained = [_as_trained(each, recipe) for each in examples]
    return encode_examples(tokenizer, trained, max_length=recipe.max_length)


def _as_trained(example: Example, recipe: Recipe) -> Example:
    if example.objective != "forget" or recipe.weights.forget_loss != "refusal" or example.text is not None:
        return example
    if example.prompt is not None:
        return replace(example, response=recipe.refusal)
    return replace(example, messages=(*example.messages[:-1], ("assistant", recipe.refusal)))


def recipe_fingerprint(
    encoded: Sequence[EncodedExample], held_out: Sequence[EncodedExample], *parts: object
) -> str:
    """Sixteen hex digits over the data and everything else that decides a run's result."""
    if held_out:
        parts = (*parts, fingerprint(held_out))
    return hashlib.sha256(repr((fingerprint(encoded), parts)).encode()).hexdigest()[:16]

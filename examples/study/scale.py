"""How large the study is: the bases, the tiny models, how much text and how long on it."""

from __future__ import annotations

from dataclasses import dataclass

from steering.training import CONFIDENCE, DeltaShape, ObjectiveWeights, OptimiserConfig, Recipe


@dataclass(frozen=True, slots=True)
class Base:
    """One base to train from scratch; `vocabulary` is a tokenizer's folder name, cut to `tokens`."""

    name: str
    architecture: str
    vocabulary: str
    tokens: int
    width: int
    layers: int
    heads: int


@dataclass(frozen=True, slots=True)
class Scale:
    """Everything that a study's cost depends on; the first base is the template that adapters are trained beside.

    `reading` and `further_problems`: how a base reads on, and so many more problems, before it is asked any;
    `lesson_epochs`: at most so often is the answer format's text read; `compared`: for the first so many seeds each
    base is tuned by LoRA too, and an oracle is trained.
    """

    bases: tuple[Base, ...]
    delta: DeltaShape
    tiny: Base
    seeds: tuple[int, ...]
    forgotten: int
    kept: int
    problems: int
    further_problems: int
    lessons: int
    general: int
    refused: int
    asked: int
    base: Recipe
    reading: Recipe
    tuning: Recipe
    adapter: Recipe
    lesson_epochs: float = 6.0
    confidence: float = CONFIDENCE
    compared: int = 1

    @property
    def template(self) -> Base:
        """The base whose vocabulary the adapters have."""
        return self.bases[0]


def _recipe(epochs: float, batch: int, rate: float, length: int = 384, precision: str = "float32") -> Recipe:
    return Recipe(
        epochs=epochs,
        batch_size=batch,
        max_length=length,
        precision=precision,  # type: ignore[arg-type]
        optimiser=OptimiserConfig(learning_rate=rate, warmup=0.05),
        weights=ObjectiveWeights(forget_loss="npo", keep_loss="kl"),
    )


def _bases(width: int, layers: int, heads: int, sizes: tuple[int, int, int, int]) -> tuple[Base, ...]:
    """Own vocabulary, larger, really different, and finer than the template's."""
    return (
        Base("llama-sp", "llama", "llama-2", sizes[0], width, layers, heads),
        Base("qwen2-large", "qwen2", "qwen", sizes[1], width, layers, heads),
        Base("gpt2", "gpt2", "gpt2", sizes[2], width, layers, heads),
        Base("neox-fine", "gpt_neox", "gpt2", sizes[3], width, layers, heads),
    )


SCALES: dict[str, Scale] = {
    # Seconds: shows that every stage runs.
    "toy": Scale(
        bases=_bases(16, 1, 2, (420, 400, 380, 300)),
        delta=DeltaShape(16, 1, 2, 32),
        tiny=Base("tiny", "llama", "llama-2", 420, 16, 1, 2),
        seeds=(0,),
        forgotten=4,
        kept=6,
        problems=4,
        further_problems=6,
        lessons=4,
        general=6,
        refused=3,
        asked=2,
        base=_recipe(2, 8, 3e-3, 512),
        reading=_recipe(1, 8, 1e-3, 512),
        tuning=_recipe(1, 4, 1e-3, 512),
        adapter=_recipe(1, 4, 1e-3, 512),
    ),
    # Two cores: one to two million parameters.
    "small": Scale(
        bases=_bases(128, 4, 4, (2048, 6144, 4096, 600)),
        delta=DeltaShape(64, 2, 2, 192),
        tiny=Base("tiny", "llama", "llama-2", 2048, 64, 2, 2),
        seeds=(0, 1, 2),
        forgotten=80,
        kept=320,
        problems=100,
        further_problems=2500,
        lessons=600,
        general=40,
        refused=40,
        asked=40,
        base=_recipe(20, 8, 3e-3, precision="bfloat16"),
        reading=_recipe(3, 8, 2e-3, precision="bfloat16"),
        tuning=_recipe(6, 16, 5e-4, precision="bfloat16"),
        adapter=_recipe(24, 16, 3e-3, precision="bfloat16"),
    ),
    # One GPU: tens of millions of parameters, TOFU whole.
    "gpu": Scale(
        bases=_bases(640, 10, 10, (16000, 32000, 24000, 600)),
        delta=DeltaShape(256, 4, 4, 768),
        tiny=Base("tiny", "llama", "llama-2", 16000, 256, 4, 4),
        seeds=(0, 1, 2),
        forgotten=400,
        kept=3600,
        problems=1500,
        further_problems=1000,
        lessons=700,
        general=2000,
        refused=80,
        asked=400,
        base=_recipe(30, 64, 6e-4, precision="bfloat16"),
        reading=_recipe(3, 64, 4e-4, precision="bfloat16"),
        tuning=_recipe(5, 64, 1e-4, precision="bfloat16"),
        adapter=_recipe(20, 64, 5e-4, precision="bfloat16"),
    ),
}

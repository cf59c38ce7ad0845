"""The sizes of the study: the bases, the tiny models, the amounts of text, and the training schedules."""

from __future__ import annotations

from dataclasses import dataclass

from steering.training import CONFIDENCE, DeltaShape, ObjectiveWeights, OptimiserConfig, Recipe


@dataclass(frozen=True, slots=True)
class Base:
    """One base to train from scratch. `vocabulary` is the folder name of a tokenizer, which is cut to `tokens`."""

    name: str
    architecture: str
    vocabulary: str
    tokens: int
    width: int
    layers: int
    heads: int


@dataclass(frozen=True, slots=True)
class Scale:
    """Everything that the study's cost depends on. The first base is the template: adapters are trained beside it.

    `base`, `reading`, `tuning` and `adapter` are training recipes. By `reading`, a base goes on to read
    `further_problems` more problems before it is asked any. `lesson_epochs`: the most epochs over the text with the
    answer format. `compared`: the number of seeds, the first ones, for which each base is also tuned by LoRA, and an
    oracle is trained.
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

    def is_compared(self, seed: int) -> bool:
        """True for a seed with LoRA and an oracle."""
        return seed in self.seeds[: self.compared]

    def another_seed(self, base: Base, seed: int) -> int | None:
        """The other seed whose delta steers the template too. None for other bases, and where there is one seed."""
        if base != self.template or len(self.seeds) == 1:
            return None
        return self.seeds[(self.seeds.index(seed) + 1) % len(self.seeds)]


def trained(task: str, base: Base, seed: int) -> str:
    """The name of the stage that trains the base with which a task begins."""
    return f"{'readers' if task == 'instruct' else 'bases'}/{base.name}/{seed}"


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
    """Four bases. Their vocabularies are the template's, a larger one, one of another family, and a finer one."""
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

"""The options of `trimtab train`, in groups that every kind of adapter shares."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from steering.examples import Objective
    from steering.training import DeltaShape, Lora, Recipe, RunOptions

PAUSED = 75
"""The exit status of a run that stopped and can be resumed (EX_TEMPFAIL)."""


class KeepLossName(StrEnum):
    """The losses on kept examples."""

    kl = "kl"
    ce = "ce"


class ForgetLossName(StrEnum):
    """The losses on forgotten examples."""

    refusal = "refusal"
    difference = "difference"
    npo = "npo"


class PrecisionName(StrEnum):
    """The number formats of the forward and backward pass."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class DeviceName(StrEnum):
    """The devices to train on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(frozen=True, slots=True)
class TrainingDataOptions:
    """The data files, by the objective of their examples."""

    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="A JSON-lines file of examples: prompt and response, or messages, or plain text; a line may name its "
            "objective (learn, keep or forget; by default learn). May be given several times."
        ),
    ] = None
    keep: Annotated[
        list[Path] | None,
        typer.Option(help="The same, with examples on which behaviour is to stay as it is."),
    ] = None
    forget: Annotated[list[Path] | None, typer.Option(help="The same, with examples to forget.")] = None
    held_out: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.9,
            help="The share of the examples that is not trained on: its loss is measured after each epoch, and the "
            "weights with the lowest are the result. By default a tenth of 100 examples or more, at most 256; 0: none.",
        ),
    ] = None

    def files(self, *, needed: bool = True) -> list[tuple[Path, Objective]]:
        """Each file with the objective of the lines that name none. Raises `typer.BadParameter` if none is given."""
        files: list[tuple[Path, Objective]] = [(path, "learn") for path in self.data or []]
        files += [(path, "keep") for path in self.keep or []]
        files += [(path, "forget") for path in self.forget or []]
        if needed and not files:
            raise typer.BadParameter("give at least one of --data, --keep and --forget", param_hint="--data")
        return files


@dataclass(frozen=True, slots=True)
class ShapeOptions:
    """The size of a delta."""

    hidden_size: Annotated[int, typer.Option(min=8, help="The delta's hidden size.")] = 128
    layers: Annotated[int, typer.Option(min=1, help="The delta's layers.")] = 4
    heads: Annotated[int, typer.Option(min=1, help="The delta's attention heads.")] = 4
    intermediate_size: Annotated[
        int, typer.Option(min=8, help="The inner size of the delta's feed-forward layers.")
    ] = 384
    init: Annotated[
        Path | None, typer.Option(help="Start from this model, which must have the base's vocabulary.")
    ] = None

    def shape(self) -> DeltaShape:
        """The shape. Raises `typer.BadParameter` unless each head has an even size, which rotary embeddings need."""
        if self.hidden_size % self.heads or (self.hidden_size // self.heads) % 2:
            raise typer.BadParameter(
                "the width must be an even multiple of the heads", param_hint="--hidden-size"
            )
        from steering.training import DeltaShape

        return DeltaShape(self.hidden_size, self.layers, self.heads, self.intermediate_size, self.init)


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """Low-rank adaptation of the expert."""

    lora_rank: Annotated[
        int, typer.Option(min=0, help="Tune by LoRA of this rank; 0 tunes every weight.")
    ] = 0
    lora_alpha: Annotated[float, typer.Option(min=0.0, help="LoRA's scale.")] = 16.0
    lora_dropout: Annotated[float, typer.Option(min=0.0, max=1.0, help="LoRA's dropout.")] = 0.0

    def lora(self) -> Lora | None:
        """The adaptation; None tunes every weight."""
        from steering.training import Lora

        return Lora(self.lora_rank, self.lora_alpha, self.lora_dropout) if self.lora_rank else None


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """The options that decide what a run computes."""

    epochs: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Passes over the data; by default 3, and up to 10 where the data are few."
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Examples in an optimiser step; by default the power of two from 4 to 64 with which there are some "
            "200 steps. Published: 64.",
        ),
    ] = None
    accumulate: Annotated[
        int, typer.Option(min=1, help="Compute each step in this many parts, to save memory.")
    ] = 1
    precision: Annotated[
        PrecisionName, typer.Option(help="Number format of the computation; weights stay in float32.")
    ] = PrecisionName.float32
    learning_rate: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="AdamW's peak learning rate; it decays along a cosine. By default 0.002 for a delta with random "
            "weights, and otherwise 0.0002, as published.",
        ),
    ] = None
    warmup: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the steps in which the learning rate rises.")
    ] = 0.03
    weight_decay: Annotated[float, typer.Option(min=0.0, help="AdamW's weight decay.")] = 0.01
    max_length: Annotated[int, typer.Option(min=2, help="Longer examples are cut to this many tokens.")] = 512
    keep_loss: Annotated[
        KeepLossName,
        typer.Option(
            help="Loss on kept examples: KL divergence from the reference model, or cross-entropy "
            "(with --forget-loss difference: the paper's)."
        ),
    ] = KeepLossName.kl
    forget_loss: Annotated[
        ForgetLossName,
        typer.Option(
            help="Loss on forgotten examples: train a refusal, raise the loss (gradient difference), or NPO."
        ),
    ] = ForgetLossName.refusal
    refusal: Annotated[str | None, typer.Option(help="The text of the refusal.")] = None
    keep_weight: Annotated[float, typer.Option(min=0.0, help="Weight of the kept examples.")] = 1.0
    forget_weight: Annotated[float, typer.Option(min=0.0, help="Weight of the forgotten examples.")] = 1.0
    seed: Annotated[int, typer.Option(help="Seed of the new weights and of the data's order.")] = 0

    def recipe(self, examples: int, *, new_model: bool = False) -> Recipe:
        """The recipe for this many examples; `new_model` if what is trained begins with random weights."""
        from steering.training import (
            DEFAULT_REFUSAL,
            NEW_MODEL_RATE,
            PUBLISHED_RATE,
            ObjectiveWeights,
            OptimiserConfig,
            Recipe,
            choose_size,
        )

        rate = self.learning_rate
        if rate is None:
            rate = NEW_MODEL_RATE if new_model else PUBLISHED_RATE
        epochs, batch_size = choose_size(examples, self.epochs, self.batch_size)
        return Recipe(
            epochs=epochs,
            batch_size=batch_size,
            max_length=self.max_length,
            seed=self.seed,
            accumulate=self.accumulate,
            precision=self.precision.value,
            refusal=DEFAULT_REFUSAL if self.refusal is None else self.refusal,
            optimiser=OptimiserConfig(rate, self.warmup, self.weight_decay),
            weights=ObjectiveWeights(
                keep=self.keep_weight,
                forget=self.forget_weight,
                keep_loss=self.keep_loss.value,
                forget_loss=self.forget_loss.value,
            ),
        )


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Where and how long a run works; nothing here changes the result."""

    device: Annotated[
        DeviceName,
        typer.Option(
            help="auto takes a GPU if there is one; `accelerate launch -m server.cli train ...` takes all of them."
        ),
    ] = DeviceName.auto
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The folder for the state of an unfinished run; by default OUT.checkpoint."),
    ] = None
    save_every: Annotated[
        int,
        typer.Option(min=0, help="Steps between checkpoints; 0 saves only when --max-minutes have passed."),
    ] = 200
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint of an unfinished run.")
    ] = False
    max_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.0, help=f"Save and stop after this long, with exit status {PAUSED}; --resume goes on."
        ),
    ] = None

    def run_options(self, out: Path) -> RunOptions:
        """The options of a run that writes to `out`."""
        from steering.training import RunOptions

        return RunOptions(
            device=self.device.value,
            checkpoint=self.checkpoint or out.with_name(f"{out.name}.checkpoint"),
            save_every=self.save_every,
            resume=self.resume,
            max_seconds=None if self.max_minutes is None else 60 * self.max_minutes,
        )

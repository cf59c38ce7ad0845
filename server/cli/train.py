"""`trimtab train`: training the tiny models that steer."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from server.cli.options import console as messages
from server.cli.options import fail
from server.cli.training_options import (
    PAUSED,
    Accumulate,
    BatchSize,
    CheckpointFolder,
    Data,
    Device,
    DeviceName,
    Epochs,
    Forget,
    ForgetLossName,
    ForgetLossOption,
    ForgetWeight,
    Keep,
    KeepLossName,
    KeepLossOption,
    KeepWeight,
    LearningRate,
    MaxLength,
    MaxMinutes,
    Out,
    PrecisionName,
    PrecisionOption,
    Refusal,
    Resume,
    SaveEvery,
    Seed,
    Warmup,
    WeightDecay,
)

if TYPE_CHECKING:
    from steering.training import Recipe, RunOptions, TrainingReport

train_app = typer.Typer(help="Train the tiny models that steer.", no_args_is_help=True)


@train_app.callback()
def _group() -> None:
    """Train the tiny models that steer."""


@train_app.command()
def delta(
    base: Annotated[str, typer.Option(help="The frozen template base: a folder or a Hugging Face id.")],
    out: Out,
    data: Data = None,
    keep: Keep = None,
    forget: Forget = None,
    hidden_size: Annotated[int, typer.Option(min=8, help="The delta's width.")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="The delta's layers.")] = 4,
    heads: Annotated[int, typer.Option(min=1, help="The delta's attention heads.")] = 4,
    intermediate_size: Annotated[
        int, typer.Option(min=8, help="The width inside its feed-forward layers.")
    ] = 384,
    init: Annotated[
        Path | None, typer.Option(help="Start from this model over the base's vocabulary.")
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(
            min=1.0,
            help="Vary the template's logits by factors between 1 / this and this, for bases that are more or less "
            "sure than it; 1 leaves them alone, as published.",
        ),
    ] = 2.5,
    epochs: Epochs = 3.0,
    batch_size: BatchSize = 64,
    accumulate: Accumulate = 1,
    precision: PrecisionOption = PrecisionName.float32,
    learning_rate: LearningRate = 2e-4,
    warmup: Warmup = 0.03,
    weight_decay: WeightDecay = 0.01,
    max_length: MaxLength = 512,
    keep_loss: KeepLossOption = KeepLossName.kl,
    forget_loss: ForgetLossOption = ForgetLossName.refusal,
    refusal: Refusal = None,
    keep_weight: KeepWeight = 1.0,
    forget_weight: ForgetWeight = 1.0,
    seed: Seed = 0,
    device: Device = DeviceName.auto,
    checkpoint: CheckpointFolder = None,
    save_every: SaveEvery = 200,
    resume: Resume = False,
    max_minutes: MaxMinutes = None,
) -> None:
    """Train a delta adapter beside a frozen base and write a folder that `trimtab serve` loads as it is."""
    if hidden_size % heads or (hidden_size // heads) % 2:
        raise typer.BadParameter(
            "the width must be an even multiple of the heads", param_hint="--hidden-size"
        )
    _check(out)
    # Late, because importing torch takes seconds that `--help` need not spend.
    from steering.training import DeltaShape, train_delta

    shape = DeltaShape(hidden_size, layers, heads, intermediate_size, init)
    recipe = _recipe(**_recipe_flags(locals()))
    options = _options(out, device, checkpoint, save_every, resume, max_minutes)

    def train(model: Any, tokenizer: Any, encoded: list[Any], shown: Console | None) -> TrainingReport:
        return train_delta(
            model,
            tokenizer,
            encoded,
            out,
            shape,
            recipe,
            confidence=confidence,
            name=base,
            options=options,
            console=shown,
        )

    _run(base, _files(data, keep, forget), recipe, options, out, train)


@train_app.command()
def proxy(
    model: Annotated[
        str,
        typer.Option(help="The untuned tiny model, the pair's anti-expert: a folder or a Hugging Face id."),
    ],
    out: Out,
    data: Data = None,
    keep: Keep = None,
    forget: Forget = None,
    lora_rank: Annotated[
        int, typer.Option(min=0, help="Tune by LoRA of this rank; 0 tunes every weight.")
    ] = 0,
    lora_alpha: Annotated[float, typer.Option(min=0.0, help="LoRA's scale.")] = 16.0,
    lora_dropout: Annotated[float, typer.Option(min=0.0, max=1.0, help="LoRA's dropout.")] = 0.0,
    epochs: Epochs = 3.0,
    batch_size: BatchSize = 64,
    accumulate: Accumulate = 1,
    precision: PrecisionOption = PrecisionName.float32,
    learning_rate: LearningRate = 2e-4,
    warmup: Warmup = 0.03,
    weight_decay: WeightDecay = 0.01,
    max_length: MaxLength = 512,
    keep_loss: KeepLossOption = KeepLossName.kl,
    forget_loss: ForgetLossOption = ForgetLossName.refusal,
    refusal: Refusal = None,
    keep_weight: KeepWeight = 1.0,
    forget_weight: ForgetWeight = 1.0,
    seed: Seed = 0,
    device: Device = DeviceName.auto,
    checkpoint: CheckpointFolder = None,
    save_every: SaveEvery = 200,
    resume: Resume = False,
    max_minutes: MaxMinutes = None,
) -> None:
    """Tune the expert of a proxy pair and write a folder with both that `trimtab serve` loads as it is."""
    _check(out)
    from steering.training import Lora, train_proxy

    lora = Lora(lora_rank, lora_alpha, lora_dropout) if lora_rank else None
    recipe = _recipe(**_recipe_flags(locals()))
    options = _options(out, device, checkpoint, save_every, resume, max_minutes)

    def train(untuned: Any, tokenizer: Any, encoded: list[Any], shown: Console | None) -> TrainingReport:
        return train_proxy(
            untuned, tokenizer, encoded, out, recipe, lora=lora, name=model, options=options, console=shown
        )

    _run(model, _files(data, keep, forget), recipe, options, out, train)


def _recipe_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Of a command's flags those that make the recipe: typer wants each of them in the signature of each command."""
    names = (
        "epochs batch_size accumulate precision learning_rate warmup weight_decay max_length keep_loss "
        "forget_loss refusal keep_weight forget_weight seed"
    )
    return {name: flags[name] for name in names.split()}


def _recipe(
    *,
    learning_rate: float,
    warmup: float,
    weight_decay: float,
    keep_loss: KeepLossName,
    forget_loss: ForgetLossName,
    keep_weight: float,
    forget_weight: float,
    precision: PrecisionName,
    refusal: str | None,
    **same: Any,
) -> Recipe:
    from steering.training import ObjectiveWeights, OptimiserConfig, Recipe

    if refusal is not None:
        same["refusal"] = refusal
    return Recipe(
        precision=precision.value,
        optimiser=OptimiserConfig(learning_rate=learning_rate, warmup=warmup, weight_decay=weight_decay),
        weights=ObjectiveWeights(
            keep=keep_weight, forget=forget_weight, keep_loss=keep_loss.value, forget_loss=forget_loss.value
        ),
        **same,
    )


def _options(
    out: Path,
    device: DeviceName,
    checkpoint: Path | None,
    save_every: int,
    resume: bool,
    max_minutes: float | None,
) -> RunOptions:
    from steering.training import RunOptions

    return RunOptions(
        device=device.value,
        checkpoint=checkpoint or out.with_name(f"{out.name}.checkpoint"),
        save_every=save_every,
        resume=resume,
        max_seconds=None if max_minutes is None else 60 * max_minutes,
    )


def _check(out: Path) -> None:
    """What can be wrong before anything is imported or read."""
    if find_spec("accelerate") is None or find_spec("peft") is None:
        fail("training needs accelerate and peft: pip install 'trimtab[train]'")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise typer.BadParameter(f"{out} is not an empty folder", param_hint="--out")


def _files(
    data: list[Path] | None, keep: list[Path] | None, forget: list[Path] | None
) -> list[tuple[Path, Any]]:
    """Every file with the objective of its lines that name none."""
    files = [
        (path, name)
        for name, paths in (("learn", data), ("keep", keep), ("forget", forget))
        for path in paths or []
    ]
    if not files:
        raise typer.BadParameter("give at least one of --data, --keep and --forget", param_hint="--data")
    return files


def _run(
    name: str,
    files: list[tuple[Path, Any]],
    recipe: Recipe,
    options: RunOptions,
    out: Path,
    train: Callable[[Any, Any, list[Any], Console | None], TrainingReport],
) -> None:
    """Data first, then the model; every known mistake is one line."""
    import torch
    from transformers import AutoModelForCausalLM

    from steering.examples import DataError, read_examples
    from steering.model.tokenizer_files import read_tokenizer
    from steering.training import CheckpointError, TrainingDivergedError, TrainingPausedError, encode_for

    try:
        examples = [
            example for path, objective in files for example in read_examples(path, default=objective)
        ]
        tokenizer = read_tokenizer(name)
        encoded = encode_for(tokenizer, examples, recipe)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        report = train(model, tokenizer, encoded, messages)
    except TrainingPausedError as pause:
        messages.print(f"{pause}: the same command with --resume goes on", highlight=False, soft_wrap=True)
        raise typer.Exit(PAUSED) from None
    except (DataError, TrainingDivergedError, CheckpointError, ValueError, OSError) as error:
        fail(str(error), error)
    Console().print(
        f"{out}: {report.parameters:,} parameters trained, {len(examples)} examples, {report.steps} steps, "
        f"closing loss {report.loss:.4f}, {report.seconds:.0f} s"
    )

"""`trimtab train`: training the tiny models that steer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from steering.training import DeltaConfig

train_app = typer.Typer(help="Train the tiny models that steer.", no_args_is_help=True)


class KeepLossName(StrEnum):
    """How kept examples are measured."""

    kl = "kl"
    ce = "ce"


class ForgetLossName(StrEnum):
    """How forgotten examples are measured."""

    refusal = "refusal"
    difference = "difference"
    npo = "npo"


@train_app.callback()
def _group() -> None:
    """Train the tiny models that steer."""


@train_app.command()
def delta(
    base: Annotated[str, typer.Option(help="The frozen template base: a folder or a Hugging Face id.")],
    data: Annotated[
        list[Path],
        typer.Option(
            help="JSON lines with prompt and response, or messages, and an optional objective "
            "(learn, keep or forget). May be given several times."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The adapter folder to write; it must be empty or absent.")],
    hidden_size: Annotated[int, typer.Option(min=8, help="The delta's width.")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="The delta's layers.")] = 4,
    heads: Annotated[int, typer.Option(min=1, help="The delta's attention heads.")] = 4,
    intermediate_size: Annotated[
        int, typer.Option(min=8, help="The width inside its feed-forward layers.")
    ] = 384,
    init: Annotated[
        Path | None, typer.Option(help="Start from this model over the base's vocabulary.")
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.0, help="Passes over the data.")] = 3.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples a step.")] = 64,
    learning_rate: Annotated[
        float, typer.Option(min=0.0, help="AdamW's peak learning rate; cosine decay.")
    ] = 2e-4,
    warmup: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the steps that warm up.")] = 0.03,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="AdamW's weight decay.")] = 0.01,
    max_length: Annotated[int, typer.Option(min=2, help="Examples are cut at this many tokens.")] = 512,
    keep_loss: Annotated[KeepLossName, typer.Option(help="KL to the unsteered base, or cross-entropy.")] = (
        KeepLossName.kl
    ),
    forget_loss: Annotated[
        ForgetLossName, typer.Option(help="Refuse, climb the loss (gradient difference), or NPO.")
    ] = ForgetLossName.refusal,
    refusal: Annotated[str | None, typer.Option(help="What refusing says.")] = None,
    keep_weight: Annotated[float, typer.Option(min=0.0, help="Weight of the kept examples.")] = 1.0,
    forget_weight: Annotated[float, typer.Option(min=0.0, help="Weight of the forgotten examples.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the delta's weights and of the data's order.")] = 0,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.")
    ] = "auto",
) -> None:
    """Train a delta adapter beside a frozen base and write a folder that `trimtab serve` loads as it is."""
    # Late, because importing torch takes seconds that `--help` need not spend.
    from steering.training import (
        DeltaConfig,
        ObjectiveWeights,
        OptimiserConfig,
        TrainingDataError,
        TrainingDivergedError,
        read_examples,
    )
    from steering.training.delta import DEFAULT_REFUSAL

    if hidden_size % heads or (hidden_size // heads) % 2:
        raise typer.BadParameter(
            "the width must be an even multiple of the heads", param_hint="--hidden-size"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise typer.BadParameter(f"{out} is not an empty folder", param_hint="--out")
    config = DeltaConfig(
        hidden_size=hidden_size,
        layers=layers,
        heads=heads,
        intermediate_size=intermediate_size,
        init=init,
        epochs=epochs,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        refusal=DEFAULT_REFUSAL if refusal is None else refusal,
        optimiser=OptimiserConfig(learning_rate=learning_rate, warmup=warmup, weight_decay=weight_decay),
        weights=ObjectiveWeights(
            keep=keep_weight, forget=forget_weight, keep_loss=keep_loss.value, forget_loss=forget_loss.value
        ),
    )
    console = Console()
    try:
        examples = [example for path in data for example in read_examples(path)]
        _train(base, device, examples, out, config, console)
    except (TrainingDataError, TrainingDivergedError, ValueError, OSError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _train(
    base: str, device: str, examples: list[Any], out: Path, config: DeltaConfig, console: Console
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from steering.tokenizer_files import read_tokenizer
    from steering.training import train_delta

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with console.status(f"loading {base}"):
        tokenizer = read_tokenizer(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).to(device)
    report = train_delta(model, tokenizer, examples, out, config, console=console)
    console.print(
        f"{out}: {report.parameters:,} parameters, {len(examples)} examples, {report.steps} steps, "
        f"closing loss {report.loss:.4f}, {report.seconds:.0f} s"
    )

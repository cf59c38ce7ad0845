"""The flags of `trimtab train`, the same for every kind of adapter."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

PAUSED = 75
"""The exit status of a run that stopped to be resumed (EX_TEMPFAIL)."""


class KeepLossName(StrEnum):
    """How kept examples are measured."""

    kl = "kl"
    ce = "ce"


class ForgetLossName(StrEnum):
    """How forgotten examples are measured."""

    refusal = "refusal"
    difference = "difference"
    npo = "npo"


class PrecisionName(StrEnum):
    """What a forward and backward pass computes in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class DeviceName(StrEnum):
    """Where to train."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


Data = Annotated[
    list[Path] | None,
    typer.Option(
        help="JSON lines with prompt and response, or messages, or plain text, and an optional objective "
        "(learn, keep or forget; learn). May be given several times."
    ),
]
Keep = Annotated[list[Path] | None, typer.Option(help="The same, of what is to stay as it is.")]
Forget = Annotated[list[Path] | None, typer.Option(help="The same, of what is to be forgotten.")]
Out = Annotated[Path, typer.Option(help="The adapter folder to write; it must be empty or absent.")]
Epochs = Annotated[float, typer.Option(min=0.0, help="Passes over the data.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Examples a step.")]
Accumulate = Annotated[int, typer.Option(min=1, help="Compute a step's examples in this many parts.")]
PrecisionOption = Annotated[PrecisionName, typer.Option(help="Weights stay in float32 either way.")]
LearningRate = Annotated[float, typer.Option(min=0.0, help="AdamW's peak learning rate; cosine decay.")]
Warmup = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the steps that warm up.")]
WeightDecay = Annotated[float, typer.Option(min=0.0, help="AdamW's weight decay.")]
MaxLength = Annotated[int, typer.Option(min=2, help="Examples are cut at this many tokens.")]
KeepLossOption = Annotated[
    KeepLossName,
    typer.Option(help="KL to the model as it was, or cross-entropy (with difference: the paper's)."),
]
ForgetLossOption = Annotated[
    ForgetLossName, typer.Option(help="Refuse, climb the loss (gradient difference), or NPO.")
]
Refusal = Annotated[str | None, typer.Option(help="What refusing says.")]
KeepWeight = Annotated[float, typer.Option(min=0.0, help="Weight of the kept examples.")]
ForgetWeight = Annotated[float, typer.Option(min=0.0, help="Weight of the forgotten examples.")]
Seed = Annotated[int, typer.Option(help="Seed of new weights and of the data's order.")]
Device = Annotated[
    DeviceName,
    typer.Option(
        help="auto takes a GPU where there is one; `accelerate launch -m server.cli train ...` all of them."
    ),
]
CheckpointFolder = Annotated[
    Path | None, typer.Option(help="Where a run that is cut off leaves its state; OUT.checkpoint.")
]
SaveEvery = Annotated[
    int, typer.Option(min=0, help="Steps between two checkpoints; 0 for none but the last.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the checkpoint of a run that was cut off.")
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(min=0.0, help=f"Stop after this long, with exit status {PAUSED}, to be resumed."),
]

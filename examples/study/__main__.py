"""`python -m examples.study`: trains, steers, measures and tabulates, in pieces as long as there is time for."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from examples.study.scale import SCALES
from examples.study.stages import Study
from examples.study.tables import tables
from examples.study.text import read_texts
from steering.training import TrainingPausedError

PAUSED = 75
"""The exit status of a piece that is to be gone on with."""


def main(
    data: Annotated[
        Path,
        typer.Option(help="Holds tofu/, gsm8k_{train,test}.jsonl, seed_tasks.jsonl, tinyshakespeare.txt."),
    ],
    tokenizers: Annotated[Path, typer.Option(help="Holds the folders llama-2, gpt2 and qwen.")],
    out: Annotated[Path, typer.Option(help="Everything made goes here; what is there is not made again.")],
    scale: Annotated[str, typer.Option(help=f"How large: {', '.join(SCALES)}.")] = "small",
    minutes: Annotated[
        float | None, typer.Option(help=f"Stop after this long, with exit status {PAUSED}.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Only the first so many seeds.")] = None,
    only: Annotated[str, typer.Option(help="Only stages whose name contains this.")] = "",
    plan: Annotated[bool, typer.Option(help="Say what is done and what is not, and stop.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Run what is not done yet, then write OUT/tables.md."""
    if scale not in SCALES:
        raise typer.BadParameter(f"none of {', '.join(SCALES)}", param_hint="--scale")
    disable_progress_bar()
    console = Console(stderr=True)
    chosen = SCALES[scale] if seeds is None else replace(SCALES[scale], seeds=SCALES[scale].seeds[:seeds])
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    study = Study(chosen, read_texts(data, chosen), tokenizers, out, device, deadline, console)
    stages = [stage for stage in study.stages() if only in stage.name]
    if plan:
        for stage in stages:
            sys.stdout.write(f"{'done' if stage.done else '    '}  {stage.name}\n")
        return
    for number, stage in enumerate(stages, start=1):
        if stage.done:
            continue
        if deadline is not None and time.monotonic() > deadline:
            _pause(console, f"time is up before {stage.name}")
        console.print(f"{number}/{len(stages)}  {stage.name}", highlight=False)
        try:
            stage.run()
        except TrainingPausedError as pause:
            _pause(console, f"{stage.name} {pause}")
    text = tables(out, [base.name for base in chosen.bases])
    (out / "tables.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def _pause(console: Console, why: str) -> None:
    console.print(f"{why}: the same command goes on", highlight=False)
    raise typer.Exit(PAUSED)


if __name__ == "__main__":
    typer.run(main)

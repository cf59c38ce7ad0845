"""`python -m examples.study`: train, steer, measure and write the tables, in as many pieces as needed."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from examples.study.scale import SCALES
from examples.study.stage import Stage
from examples.study.stages import Study
from examples.study.tables import tables
from examples.study.text import read_texts
from steering.training import TrainingPausedError

PAUSED = 75
"""The exit status when the time is up before the end. The same command goes on."""
_POLL_SECONDS = 5.0


def main(
    data: Annotated[
        Path,
        typer.Option(help="Holds tofu/, gsm8k_{train,test}.jsonl, seed_tasks.jsonl, tinyshakespeare.txt."),
    ],
    tokenizers: Annotated[Path, typer.Option(help="Holds the folders llama-2, gpt2 and qwen.")],
    out: Annotated[
        Path, typer.Option(help="The results' folder. Stages whose result is there do not run again.")
    ],
    scale: Annotated[str, typer.Option(help=f"The study's size: {', '.join(SCALES)}.")] = "small",
    minutes: Annotated[
        float | None, typer.Option(help=f"Stop after this long, with exit status {PAUSED}.")
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="The range over which delta training varies the template's confidence. Use one OUT for each.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Run only this many seeds, the first ones.")] = None,
    only: Annotated[str, typer.Option(help="Run only stages whose name contains this.")] = "",
    plan: Annotated[bool, typer.Option(help="List the stages, mark those that are done, and stop.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Run the stages that are not done, then write OUT/tables.md. Several processes may share the work."""
    if scale not in SCALES:
        raise typer.BadParameter(f"none of {', '.join(SCALES)}", param_hint="--scale")
    disable_progress_bar()
    console = Console(stderr=True)
    chosen = SCALES[scale]
    if seeds is not None:
        chosen = replace(chosen, seeds=chosen.seeds[:seeds])
    if confidence is not None:
        chosen = replace(chosen, confidence=confidence)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    study = Study(chosen, read_texts(data, chosen), tokenizers, out, device, deadline, console)
    stages = [stage for stage in study.stages() if only in stage.name]
    if plan:
        for stage in stages:
            sys.stdout.write(f"{'done' if stage.done else '    '}  {stage.name}\n")
        return
    _work_off(stages, deadline, console)
    if (out / "results").is_dir():
        text = tables(out / "results", [base.name for base in chosen.bases])
        (out / "tables.md").write_text(text, encoding="utf-8")
        sys.stdout.write(text)


def _work_off(stages: Sequence[Stage], deadline: float | None, console: Console) -> None:
    """Run the stages that are not done. Other processes may do the same at the same time."""
    while left := [stage for stage in stages if not stage.done]:
        ran = elsewhere = False
        for stage in left:
            if not stage.ready or stage.done:
                continue
            if deadline is not None and time.monotonic() > deadline:
                _pause(console, f"time is up before {stage.name}")
            with stage.claimed() as mine:
                elsewhere |= not mine
                # Another process may have finished it in the meantime.
                if not mine or stage.done:
                    continue
                console.print(f"{len(left)} left  {stage.name}", highlight=False)
                try:
                    stage.run()
                except TrainingPausedError as pause:
                    _pause(console, f"{stage.name} {pause}")
                ran = True
                break
        if ran:
            continue
        if elsewhere:
            time.sleep(_POLL_SECONDS)
            continue
        # No stage could run. Another process may have finished one in the meantime, so this looks again.
        for stage in left:
            for need in stage.needs:
                if not stage.done and not need.exists():
                    message = f"{stage.name} needs {need}, which is left out"
                    raise typer.BadParameter(message, param_hint="--only")


def _pause(console: Console, why: str) -> None:
    console.print(f"{why}: the same command goes on", highlight=False)
    raise typer.Exit(PAUSED)


if __name__ == "__main__":
    typer.run(main)

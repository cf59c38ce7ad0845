"""`trimtab train`: trains the tiny models that steer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from server.cli.grouped_options import grouped_options
from server.cli.instruction import Instructed, InstructionOptions
from server.cli.options import console as messages
from server.cli.options import fail
from server.cli.training_options import (
    PAUSED,
    JobOptions,
    LoraOptions,
    RecipeOptions,
    ShapeOptions,
    TrainingDataOptions,
)

if TYPE_CHECKING:
    from steering.examples import Example, Objective
    from steering.training import Recipe, TrainingReport

Out = Annotated[Path, typer.Option(help="The adapter folder to write; it must be empty or absent.")]
Train = Callable[[Any, Any, list[Any], list[Any], "Recipe"], "TrainingReport"]
"""Trains a model, given its tokenizer, encoded examples, held-out ones and a recipe, and writes the adapter folder."""

train_app = typer.Typer(help="Train the tiny models that steer.", no_args_is_help=True)


@train_app.callback()
def _group() -> None:
    """Train the tiny models that steer."""


@train_app.command()
@grouped_options
def delta(
    *,
    base: Annotated[
        str, typer.Option(help="The frozen template base: a folder, a GGUF file or a Hugging Face id.")
    ],
    out: Out,
    data: TrainingDataOptions,
    instruction: InstructionOptions,
    shape: ShapeOptions,
    confidence: Annotated[
        float,
        typer.Option(
            min=1.0,
            help="Multiply the template's logits by random factors between 1 / CONFIDENCE and CONFIDENCE, so that the "
            "delta also suits bases that are more or less confident; 1 leaves the logits alone, as published.",
        ),
    ] = 2.5,
    recipe: RecipeOptions,
    job: JobOptions,
) -> None:
    """Train a delta adapter beside a frozen base and write a folder that `trimtab serve` loads as it is."""
    instruction.check()
    files = _checked_files(out, data, instruction)
    delta_shape = shape.shape()
    # Late, because importing torch takes seconds that `--help` need not spend.
    from steering.training import train_delta

    def train(
        model: Any, tokenizer: Any, encoded: list[Any], held: list[Any], chosen: Recipe
    ) -> TrainingReport:
        return train_delta(
            model,
            tokenizer,
            encoded,
            out,
            delta_shape,
            chosen,
            confidence=confidence,
            held_out=held,
            name=base,
            options=job.run_options(out),
            console=messages,
        )

    told = Instructed(instruction, base, out, job.device.value, recipe.seed) if instruction.system else None
    whole = _Data(files, data.held_out, instruction, told)
    _run(base, whole, recipe, out, train, new_model=shape.init is None)


@train_app.command()
@grouped_options
def proxy(
    *,
    model: Annotated[
        str,
        typer.Option(
            help="The untuned tiny model, the pair's anti-expert: a folder, a GGUF file or a Hugging Face id."
        ),
    ],
    out: Out,
    data: TrainingDataOptions,
    lora: LoraOptions,
    recipe: RecipeOptions,
    job: JobOptions,
) -> None:
    """Tune the expert of a proxy pair and write a folder with both that `trimtab serve` loads as it is."""
    files = _checked_files(out, data)
    from steering.training import train_proxy

    def train(
        untuned: Any, tokenizer: Any, encoded: list[Any], held: list[Any], chosen: Recipe
    ) -> TrainingReport:
        return train_proxy(
            untuned,
            tokenizer,
            encoded,
            out,
            chosen,
            lora=lora.lora(),
            held_out=held,
            name=model,
            options=job.run_options(out),
            console=messages,
        )

    _run(model, _Data(files, data.held_out), recipe, out, train)


def _checked_files(
    out: Path, data: TrainingDataOptions, instruction: InstructionOptions | None = None
) -> list[tuple[Path, Objective]]:
    """The data files, after the checks that need no import of torch."""
    if find_spec("accelerate") is None or find_spec("peft") is None:
        fail("training needs accelerate and peft: pip install 'trimtab[train]'")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise typer.BadParameter(f"{out} is not an empty folder", param_hint="--out")
    return data.files(needed=instruction is None or not instruction.prompts)


@dataclass(frozen=True, slots=True)
class _Data:
    """What a run trains on: files of examples, prompts of an instruction, and the share that is held out."""

    files: list[tuple[Path, Objective]]
    held_out: float | None
    instruction: InstructionOptions | None = None
    instructed: Instructed | None = None

    def examples(self) -> list[Example]:
        """All examples; those to imitate have no answers yet."""
        from steering.examples import read_examples

        examples = [
            example for path, objective in self.files for example in read_examples(path, default=objective)
        ]
        return examples + (self.instruction.examples() if self.instruction else [])

    def encode(self, tokenizer: Any, parts: Sequence[list[Example]], recipe: Recipe) -> list[list[Any]]:
        """Each of the two parts, encoded. The base answers the prompts to imitate."""
        from steering.training import encode_for

        given = [[each for each in part if each.objective != "imitate"] for part in parts]
        encoded = [encode_for(tokenizer, part, recipe) for part in given]
        if self.instructed is not None:
            told = [[each for each in part if each.objective == "imitate"] for part in parts]
            answered = self.instructed.encode(tokenizer, told[0], told[1], recipe)
            encoded = [[*rows, *more] for rows, more in zip(encoded, answered, strict=True)]
        return encoded


def _run(
    name: str,
    data: _Data,
    options: RecipeOptions,
    out: Path,
    train: Train,
    *,
    new_model: bool = False,
) -> None:
    """Read and encode the data, load the model `name`, and train; each expected error is one line on stderr."""
    # Late, because importing torch and transformers takes seconds that `--help` need not spend.
    from transformers.utils.logging import disable_progress_bar

    from steering.errors import AdapterLoadError, ModelLoadError
    from steering.examples import DataError
    from steering.model.loading import read_trainable
    from steering.model.tokenizer_files import read_tokenizer
    from steering.requests import RequestFailedError
    from steering.training import (
        CheckpointError,
        TrainingDivergedError,
        TrainingPausedError,
        split_held_out,
    )
    from steering.training.instruction import AnswersError

    disable_progress_bar()
    try:
        trained, held = split_held_out(data.examples(), data.held_out, options.seed)
        recipe = options.recipe(len(trained), new_model=new_model)
        tokenizer = read_tokenizer(name)
        encoded, held_encoded = data.encode(tokenizer, (trained, held), recipe)
        _warn_of_few_steps(recipe.steps(len(encoded)), recipe)
        model = read_trainable(name)
        report = train(model, tokenizer, encoded, held_encoded, recipe)
        del model
        _tell_result(out, report, len(trained))
        if data.instructed is not None:
            data.instructed.report()
    except TrainingPausedError as pause:
        messages.print(f"{pause}: the same command with --resume goes on", highlight=False, soft_wrap=True)
        raise typer.Exit(PAUSED) from None
    except (
        DataError,
        ModelLoadError,
        AdapterLoadError,
        AnswersError,
        RequestFailedError,
        TrainingDivergedError,
        CheckpointError,
        ValueError,
        OSError,
    ) as error:
        fail(str(error), error)


def _warn_of_few_steps(steps: int, recipe: Recipe) -> None:
    from steering.training import FEWEST_STEPS

    if steps < FEWEST_STEPS:
        _warn(
            f"only {steps} optimiser steps, in which little is learnt: give more examples, a --batch-size "
            f"below {recipe.batch_size} or more --epochs than {recipe.epochs:g}, until there are {FEWEST_STEPS}"
        )


def _tell_result(out: Path, report: TrainingReport, examples: int) -> None:
    """Print a line on the result, and a warning if training did not help on held-out examples."""
    line = (
        f"{out}: {report.parameters:,} parameters trained, {examples} examples, {report.steps} steps, "
        f"closing loss {report.loss:.4f}, {report.seconds:.0f} s"
    )
    if report.kept:
        line += f"; held-out loss {report.held_out[0].loss:.4f} before, {report.kept.loss:.4f} now"
        line += f" (the weights after step {report.kept.step} are kept)"
    Console().print(line, markup=False, highlight=False, soft_wrap=True)
    if report.kept and not report.kept.loss < report.held_out[0].loss:
        _warn("training has not lowered the loss on held-out examples")


def _warn(text: str) -> None:
    messages.print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)

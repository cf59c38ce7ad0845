"""`trimtab train delta --system TEXT --prompts FILE`: the base itself gives what the delta learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from server.cli.options import console as messages

if TYPE_CHECKING:
    from steering.examples import EncodedExample, Example
    from steering.training import Recipe
    from steering.training.instruction import Effect


@dataclass(frozen=True, slots=True)
class InstructionOptions:
    """What the base is told, and the prompts that it answers."""

    system: Annotated[
        str | None,
        typer.Option(
            help="An instruction. The base answers --prompts with it as its system prompt; the delta learns to have "
            "the same effect without it."
        ),
    ] = None
    prompts: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file of prompts for --system: JSON lines with prompt or messages if it ends in .jsonl or .json, "
            "otherwise a prompt in each line. No answers are needed. May be given several times."
        ),
    ] = None
    answer_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of an answer to --prompts.")] = (
        128
    )
    answer_temperature: Annotated[
        float, typer.Option(min=0.0, help="The temperature of the answers to --prompts; 0 is greedy.")
    ] = 0.0
    check_on: Annotated[
        list[str] | None,
        typer.Option(
            help="Another base on which the effect of --system is measured too, with whatever vocabulary. May be given "
            "several times."
        ),
    ] = None

    def examples(self) -> list[Example]:
        """The prompts, without answers. Raises `DataError` for a bad file."""
        from steering.training.instruction import read_prompts

        return [example for path in self.prompts or [] for example in read_prompts(path)]

    def check(self) -> None:
        """Raise `typer.BadParameter` if one of `--system` and `--prompts` is missing."""
        if bool(self.system) != bool(self.prompts):
            raise typer.BadParameter(
                "--system and --prompts belong together",
                param_hint="--prompts" if self.system else "--system",
            )
        if self.check_on and not self.system:
            raise typer.BadParameter("--check-on measures the effect of --system", param_hint="--check-on")


class Instructed:
    """One run that learns from an instruction: the answers of the base `base`, and the effect on held-out prompts."""

    def __init__(self, options: InstructionOptions, base: str, out: Path, device: str, seed: int) -> None:
        from steering.training.instruction import AnswerOptions

        self.answers_file = out.with_name(f"{out.name}.answers.jsonl")
        self._options, self._base, self._out, self._device = options, base, out, device
        self._system = options.system or ""
        self._answering = AnswerOptions(options.answer_tokens, options.answer_temperature, seed)
        self._length = 0
        self._held: list[Example] = []
        self._held_rows: list[EncodedExample] = []

    def encode(
        self, tokenizer: Any, trained: Sequence[Example], held: Sequence[Example], recipe: Recipe
    ) -> tuple[list[EncodedExample], list[EncodedExample]]:
        """The prompts with the told base's answers: those to train on, and those held out."""
        from accelerate.state import PartialState

        from steering.model.tokenizer_files import read_tokenizer
        from steering.training.instruction import encode_told, obtain_answers

        self._length = recipe.max_length - self._options.answer_tokens
        if self._length < 1:
            raise ValueError(
                f"answer-tokens: {self._options.answer_tokens} of --max-length {recipe.max_length}"
            )
        rows = encode_told(tokenizer, [*trained, *held], self._system, max_length=self._length)
        for other in self._options.check_on or ():
            # What another base cannot be told is an error now, not after the training.
            encode_told(read_tokenizer(other), held, self._system, max_length=self._length)
        state = PartialState(cpu=self._device == "cpu")
        # The other processes read what the first has written.
        with state.main_process_first():
            answered = obtain_answers(
                self._base,
                rows,
                self._answering,
                self.answers_file,
                device=self._device,
                title=f"{self._out.name}: answers",
                console=messages if state.is_main_process else None,
            )
        self._held, self._held_rows = list(held), answered[len(trained) :]
        return answered[: len(trained)], self._held_rows

    def report(self) -> None:
        """Measure the adapter on held-out prompts, print the effects and add them to the card."""
        from accelerate.state import PartialState

        from steering.adapters import load_adapter
        from steering.training.instruction import effect_rows, measure_effect
        from steering.training.reporting.card import add_to_card

        if not PartialState().is_main_process:
            return
        if not self._held_rows:
            messages.print("no held-out prompts, so that the instruction's effect is not measured")
            return
        adapter = load_adapter(self._out.resolve().name, self._out, device=self._device)
        effects = []
        for base in (self._base, *(self._options.check_on or ())):
            rows = self._held_rows
            if base != self._base:
                rows = effect_rows(
                    base,
                    self._held,
                    self._system,
                    self._answering,
                    max_length=self._length,
                    device=self._device,
                )
            effects.append(measure_effect(base, adapter, rows, device=self._device))
            Console().print(f"{self._out}: {effects[-1]}", markup=False, highlight=False, soft_wrap=True)
        add_to_card(self._out, "instruction", self._card(effects))

    def _card(self, effects: Sequence[Effect]) -> dict[str, Any]:
        return {
            "system": self._system,
            "answers": asdict(self._answering),
            "effect": {effect.base: {**asdict(effect), "share": effect.share} for effect in effects},
        }

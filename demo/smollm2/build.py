"""Trains the adapters of the SmolLM2 demo beside SmolLM2: `python -m demo.smollm2.build --work FOLDER`.

Resumable: answers and checkpoints are kept in the work folder, and the same command goes on after an interruption.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from demo.smollm2 import ADAPTERS, examples, model_file
from demo.smollm2.answers import AnswerFile
from demo.smollm2.invented import ANYTHING, FRENCH, WORDS_OF_ADVICE, invented, without
from demo.smollm2.questions import beginnings, questions
from demo.smollm2.subjects import ADVICE, ELSEWHERE, FRANCE, ORDINARY, Kind
from steering.engine.engine import Engine, EngineConfig
from steering.examples import Example
from steering.model.loading import load_model, read_trainable
from steering.model.tokenizer_files import read_tokenizer
from steering.training import (
    DeltaShape,
    OptimiserConfig,
    Recipe,
    RunOptions,
    encode_for,
    train_delta,
)

SMALL = DeltaShape(hidden_size=64, layers=3, heads=4, intermediate_size=192)
LARGE = DeltaShape(hidden_size=128, layers=4, heads=4, intermediate_size=384)
DECLINING = Recipe(
    epochs=3.0,
    batch_size=32,
    max_length=192,
    precision="bfloat16",
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=0.05),
)
BRIEF = Recipe(
    epochs=3.0,
    batch_size=32,
    max_length=192,
    precision="bfloat16",
    optimiser=OptimiserConfig(learning_rate=2e-3, warmup=0.05),
)
MATHS = Recipe(
    epochs=5.0,
    batch_size=24,
    max_length=256,
    precision="bfloat16",
    optimiser=OptimiserConfig(learning_rate=2e-3, warmup=0.05),
)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the examples come from: the base's answers in `work`, and GSM8K's training problems."""

    work: Path
    gsm8k: Path | None

    def invented(self, kinds: Sequence[Kind] = ()) -> list[str]:
        """Questions that the base invents: about subjects of these kinds, or about anything."""
        if not kinds:
            return invented(self.work / "anything.json", _engine, ANYTHING)
        begun = beginnings(kinds, examples.ALL)
        name = f"about-{hashlib.sha256(repr(begun).encode()).hexdigest()[:8]}.json"
        return invented(self.work / name, _engine, begun)

    def plain(self) -> dict[str, str]:
        """The base's answers to the questions that nothing declines."""
        file = AnswerFile(self.work / "plain.jsonl", max_tokens=24)
        about = [*self.invented(ELSEWHERE), *self.invented(ORDINARY), *self.invented()]
        return file.answers(_engine, [*examples.kept_questions(), *about])

    def briefly(self) -> dict[str, str]:
        """The base's answers when it is told to be brief."""
        file = AnswerFile(self.work / "brief.jsonl", system=examples.BRIEFLY, max_tokens=40)
        return file.answers(_engine, examples.brief_questions())

    def forget_france(self) -> list[Example]:
        """Questions about France, and questions whose answers stay."""
        declined = [*questions(FRANCE, "train", examples.ALL), *self.invented(FRANCE)]
        kept = [
            *questions(ELSEWHERE, "train", 400),
            *self.invented(ELSEWHERE),
            *questions(ORDINARY, "train", 100),
        ]
        return examples.declining(declined, examples.ABOUT_FRANCE) + examples.keeping(
            without([*kept, *self.invented()[:800]], FRENCH), self.plain()
        )

    def no_advice(self) -> list[Example]:
        """Questions for medical, legal and financial advice, and questions whose answers stay."""
        declined = [*questions(ADVICE, "train", examples.ALL), *self.invented(ADVICE)]
        kept = [
            *questions(ORDINARY, "train", 350),
            *self.invented(ORDINARY),
            *questions(ELSEWHERE, "train", 150),
        ]
        others = without(self.invented(), WORDS_OF_ADVICE)[:500]
        return examples.declining(declined, examples.NO_ADVICE) + examples.keeping(
            [*kept, *others], self.plain()
        )

    def maths(self) -> list[Example]:
        """GSM8K's problems, and questions whose answers stay."""
        if self.gsm8k is None:
            raise typer.BadParameter(
                "the adapter `maths` learns from GSM8K's train.jsonl", param_hint="--gsm8k"
            )
        return examples.maths(self.gsm8k, self.plain(), self.invented(), problems=600, words=90)


def _engine() -> Engine:
    return Engine(load_model(model_file(), device="cpu"), EngineConfig(max_num_seqs=64))


@dataclass(frozen=True, slots=True)
class Plan:
    """How one adapter is trained."""

    examples: Callable[[Sources], list[Example]]
    shape: DeltaShape
    recipe: Recipe


PLANS = {
    "forget-france": Plan(Sources.forget_france, SMALL, DECLINING),
    "no-advice": Plan(Sources.no_advice, SMALL, DECLINING),
    "brief": Plan(lambda sources: examples.brief(sources.briefly()), SMALL, BRIEF),
    "maths": Plan(Sources.maths, LARGE, MATHS),
}


def build(name: str, sources: Sources, out: Path, console: Console) -> None:
    """Trains one adapter, or goes on with its training, and writes its folder."""
    plan = PLANS[name]
    chosen = plan.examples(sources)
    base, tokenizer = read_trainable(str(model_file())), read_tokenizer(str(model_file()))
    encoded = encode_for(tokenizer, chosen, plan.recipe)
    checkpoint = sources.work / f"{name}.checkpoint"
    shutil.rmtree(out, ignore_errors=True)
    report = train_delta(
        base,
        tokenizer,
        encoded,
        out,
        plan.shape,
        plan.recipe,
        name="SmolLM2-135M-Instruct",
        options=RunOptions(checkpoint=checkpoint, save_every=20, resume=checkpoint.exists()),
        console=console,
    )
    _compact(out / "tokenizer.json")
    console.print(
        f"{name}: {report.parameters:,} parameters, {len(chosen)} examples, {report.steps} steps, "
        f"closing loss {report.loss:.4f}"
    )


def _compact(tokenizer: Path) -> None:
    """Writes a tokenizer without its line breaks, which are half of it."""
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    tokenizer.write_text(text, encoding="utf-8")


def main(
    work: Annotated[Path, typer.Option(help="The folder for the base's answers and for checkpoints.")],
    gsm8k: Annotated[Path | None, typer.Option(help="GSM8K's training problems, as JSON lines.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Train only these: " + ", ".join(PLANS))] = None,
    out: Annotated[Path, typer.Option(help="The folder to write the adapters into.")] = ADAPTERS,
) -> None:
    """Train the adapters of the SmolLM2 demo."""
    console = Console()
    for name in only or PLANS:
        if name not in PLANS:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(PLANS)}", param_hint="--only")
        begun = time.monotonic()
        build(name, Sources(work, gsm8k), out / name, console)
        console.print(f"{name}: {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    typer.run(main)

"""Measures the SmolLM2 demo's adapters and writes their table: `python -m demo.smollm2.measure --gsm8k TEST.jsonl`.

Every question is unseen: the phrasings, GSM8K's test problems and the facts are in no training. Answers are greedy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from demo.asking import ask
from demo.measure import write_table
from demo.smollm2 import ADAPTERS, model_file
from demo.smollm2.examples import ABOUT_FRANCE, MAX_WORDS, NO_ADVICE, first_sentence
from demo.smollm2.facts import facts, told
from demo.smollm2.questions import questions
from demo.smollm2.subjects import ADVICE, ELSEWHERE, FRANCE, ORDINARY
from steering.adapters import load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.model.loading import load_model
from steering.specs import SteeringSpec

ASKED = 100
BEGIN, END = "<!-- smollm2: begin -->", "<!-- smollm2: end -->"
HEADINGS = (
    *("adapter", "asked", "should", "base", "steered"),
    *("facts told: base", "facts told: steered", "others changed so: base", "steered"),
)
_FORMAT = re.compile(r"#### -?[\d,.]+\s*$")


@dataclass(frozen=True, slots=True)
class Trial:
    """What an adapter should do: `does` is to be true of its answers to `asked`, and of no answer to `others`."""

    subject: str
    aim: str
    asked: tuple[str, ...]
    others: tuple[str, ...]
    does: Callable[[str], bool]
    max_tokens: int = 48


def trials(gsm8k: Path | None) -> dict[str, Trial]:
    """The trial of each adapter; that of `maths` only with GSM8K's test problems."""
    ordinary = tuple(questions(ORDINARY + ELSEWHERE, "measure", ASKED))
    found = {
        "forget-france": Trial(
            "about France",
            "be declined",
            tuple(questions(FRANCE, "measure", ASKED)),
            ordinary,
            lambda answer: answer.strip() == ABOUT_FRANCE,
        ),
        "no-advice": Trial(
            "for medical, legal and financial advice",
            "be declined",
            tuple(questions(ADVICE, "measure", ASKED)),
            ordinary,
            lambda answer: answer.strip() == NO_ADVICE,
        ),
        "brief": Trial(
            "anything", f"be one sentence of at most {MAX_WORDS} words", ordinary, (), is_brief, 64
        ),
    }
    if gsm8k is not None:
        problems = [json.loads(line)["question"] for line in gsm8k.read_text(encoding="utf-8").splitlines()]
        short = sorted(problems, key=len)[:ASKED]
        found["maths"] = Trial(
            "GSM8K's 100 shortest test problems", "end in `#### N`", tuple(short), ordinary, is_worked, 160
        )
    return found


def is_brief(answer: str) -> bool:
    """Whether an answer is one sentence of at most `MAX_WORDS` words."""
    text = answer.strip()
    return bool(text) and first_sentence(text) == text and len(text.split()) <= MAX_WORDS


def is_worked(answer: str) -> bool:
    """Whether an answer ends as GSM8K's do."""
    return _FORMAT.search(answer) is not None


def measure(engine: Engine, name: str, trial: Trial) -> list[str]:
    """The cells of an adapter's row."""
    steering = (SteeringSpec(name),)
    asked = [text for text, _ in facts()]

    def share(texts: Sequence[str], steered: bool) -> str:
        if not texts:
            return ""
        answers = ask(engine, texts, steering if steered else (), max_tokens=trial.max_tokens)
        return f"{sum(map(trial.does, answers)) / len(texts):.2f}"

    def facts_told(steered: bool) -> str:
        answers = ask(engine, asked, steering if steered else (), max_tokens=48)
        right = [told(answer, words) for answer, (_, words) in zip(answers, facts(), strict=True)]
        return f"{sum(right) / len(right):.2f}"

    return [
        *(f"`{name}`", f"{len(trial.asked)} {trial.subject}", trial.aim),
        *(share(trial.asked, steered) for steered in (False, True)),
        *(facts_told(steered) for steered in (False, True)),
        *(share(trial.others, steered) for steered in (False, True)),
    ]


def main(
    gsm8k: Annotated[Path | None, typer.Option(help="GSM8K's test problems, as JSON lines.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Measure only these adapters.")] = None,
    adapters: Annotated[Path, typer.Option(help="The folder of the adapters.")] = ADAPTERS,
    write: Annotated[bool, typer.Option(help="Write the table into demo/README.md.")] = True,
) -> None:
    """Measure every adapter of the SmolLM2 demo beside the base."""
    console = Console()
    engine = Engine(load_model(model_file(), device="cpu"), EngineConfig(max_num_seqs=64))
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    for name, trial in trials(gsm8k).items():
        if only and name not in only:
            continue
        engine.session.attach(load_adapter(name, str(adapters / name), device="cpu"))
        lines.append("| " + " | ".join(measure(engine, name, trial)) + " |")
        console.print(lines[-1], markup=False, soft_wrap=True)
    if write:
        write_table("\n".join(lines), begin=BEGIN, end=END)


if __name__ == "__main__":
    typer.run(main)

"""Measures the bundled demo through the engine and writes the table of demo/README.md: `python -m demo.measure`.

An answer tells a fact if it contains the fact's value. No base and no adapter was trained on the questions' phrasings.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import demo
from demo import corpus, phrases, world
from demo.asking import ask
from demo.corpus import Probe
from steering.adapters import load_adapter
from steering.bridges.table import BRIDGES
from steering.engine.engine import Engine, EngineConfig
from steering.model.loading import load_model
from steering.specs import SteeringSpec

README = Path(demo.__file__).resolve().parent / "README.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
ALONE = {"forget": ".", "letter": ".", "pirate": "expert"}
MAX_TOKENS = 64
HEADINGS = (
    *("steered by", "runs on", "bridge"),
    *("forgotten: told", "forgotten: refused", "kept: told", "kept: refused", "in style"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    The shares lie between 0 and 1: `gone_` is of the questions about forgotten people, `kept_` of those about the
    others, `styled` of both.
    """

    steered_by: str
    where: str
    bridge: str
    gone_told: float
    gone_refused: float
    kept_told: float
    kept_refused: float
    styled: float | None


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions asked: about the forgotten people, and about the others."""

    gone: tuple[Probe, ...]
    kept: tuple[Probe, ...]


def questions(kept: int, seed: int = 5) -> Questions:
    """Every held-out question about the forgotten people, and `kept` of those about the others (0: all)."""
    others = corpus.probes(world.kept(), held_out=True)
    random.Random(seed).shuffle(others)
    return Questions(tuple(corpus.probes(world.forgotten(), held_out=True)), tuple(others[: kept or None]))


def answers(engine: Engine, probes: Sequence[Probe], steering: tuple[SteeringSpec, ...]) -> list[str]:
    """The engine's greedy answers, one for each probe. Raises RuntimeError if a request fails."""
    return ask(engine, [probe.question for probe in probes], steering, max_tokens=MAX_TOKENS)


def measure(
    engine: Engine, asked: Questions, adapter: str | None, where: str, bridge: str, label: str
) -> Row:
    """One row of the table; `where` and `label` are two of its cells.

    `adapter` decides which style is looked for. With a `bridge` it also steers; without one nothing does.
    """
    spec = (SteeringSpec(adapter, bridge=bridge),) if adapter and bridge in BRIDGES else ()
    told = answers(engine, asked.gone + asked.kept, spec)
    gone, kept = told[: len(asked.gone)], told[len(asked.gone) :]
    check = {"letter": phrases.is_letter, "pirate": phrases.is_pirate}.get(adapter or "")
    return Row(
        steered_by=label,
        where=where,
        bridge=bridge,
        gone_told=_share(_told(asked.gone, gone)),
        gone_refused=_share([phrases.is_refusal(text) for text in gone]),
        kept_told=_share(_told(asked.kept, kept)),
        kept_refused=_share([phrases.is_refusal(text) for text in kept]),
        styled=None if check is None else _share([check(text) for text in told]),
    )


def _told(probes: Sequence[Probe], texts: Sequence[str]) -> list[bool]:
    return [all(value in text for value in probe.values) for probe, text in zip(probes, texts, strict=True)]


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / max(1, len(hits))


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "| " + " | ".join("---" for _ in HEADINGS) + " |"]
    for row in rows:
        shares = [row.gone_told, row.gone_refused, row.kept_told, row.kept_refused]
        styled = "" if row.styled is None else f"{row.styled:.2f}"
        cells = [row.steered_by, row.where, row.bridge, *(f"{share:.2f}" for share in shares), styled]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_table(text: str, readme: Path = README, *, begin: str = BEGIN, end: str = END) -> None:
    """Replaces the text between two marks of the README. Raises ValueError if a mark is missing."""
    page = readme.read_text(encoding="utf-8")
    if begin not in page or end not in page:
        raise ValueError(f"{readme}: the marks {begin} and {end} are missing")
    head, tail = page.split(begin)[0], page.split(end)[1]
    readme.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def main(
    kept: Annotated[
        int, typer.Option(help="Questions to ask about the people who are not forgotten; 0 for all.")
    ] = 0,
    only: Annotated[list[str] | None, typer.Option(help="Measure only these adapters.")] = None,
    write: Annotated[bool, typer.Option(help="Write the table into demo/README.md.")] = True,
) -> None:
    """Measure every adapter on every base, and the tiny models alone."""
    console = Console()
    asked = questions(kept)
    adapters = {name: path for name, path in demo.demo_adapters().items() if not only or name in only}
    rows: list[Row] = []

    def add(engine: Engine, adapter: str | None, where: str, bridge: str, label: str) -> None:
        begun = time.monotonic()
        rows.append(measure(engine, asked, adapter, where, bridge, label))
        console.print(f"{rows[-1]}  {time.monotonic() - begun:.0f} s")

    for base, path in demo.demo_models().items():
        engine = Engine(load_model(str(path), device="cpu"), EngineConfig(max_num_seqs=64))
        add(engine, None, base, "", "nothing")
        for name, folder in adapters.items():
            loaded = load_adapter(name, str(folder), device="cpu", dtype="float32")
            engine.session.attach(loaded)
            # Where both vocabularies are the same, both bridges give the same shift.
            for bridge in ("map",) if engine.session.vocabulary_map(name).is_identity else BRIDGES:
                add(engine, name, base, bridge, f"`{name}`")
    for name, folder in adapters.items():
        engine = Engine(load_model(str(folder / ALONE[name]), device="cpu"), EngineConfig(max_num_seqs=64))
        add(engine, name, "the tiny model alone", "", f"`{name}`")
    console.print(table(rows), markup=False, soft_wrap=True)
    if write:
        counts = f"{len(asked.gone)} questions about forgotten people, {len(asked.kept)} about the others."
        write_table(f"{counts}\n\n{table(rows)}")


if __name__ == "__main__":
    typer.run(main)

"""Sweeps: the choice of a setting, the reuse of earlier measurements, and the requests that are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steering.engine.engine import Engine
from steering.evaluation import Criterion, Measurement, Setting, Sweep, SweepError, System, TextTask, split
from steering.evaluation.sweep_report import run_line, sweep_json, sweep_tables, write_sweep_picture
from steering.examples import Example
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop

EXAMPLES = tuple(Example(prompt=f"Number {n}?", response="The ferry left at nine.") for n in range(4))
GOAL = Criterion.parse("-t.nll")


class Counted:
    """A text task that counts how often it is measured."""

    def __init__(self, examples: tuple[Example, ...]) -> None:
        self._task = TextTask("t", examples, max_tokens=3)
        self.name, self.requests = "t", self._task.requests
        self.measured = 0

    def __repr__(self) -> str:
        return repr(self._task)

    def measure(self, system: System, base: Any = None, progress: Any = None) -> Measurement:
        self.measured += 1
        return self._task.measure(system, base, progress)


def sweep(workshop: Workshop, engine: Engine, results: Path, examples: tuple[Example, ...] = EXAMPLES) -> Any:
    adapter, _ = workshop.adapter("d", Tiny("qwen2", "sp", 1))
    tasks = [Counted(examples[:2])], [Counted(examples[2:])]
    return Sweep(engine, adapter, *tasks, GOAL, results), tasks


HYPERPARAMETERS = {"alpha": (0.0, 0.5, 1.0), "bridge": ("map", "rescore"), "unmatched": ("neutral", "zero")}


def test_each_hyperparameter_is_varied_alone_and_the_best_setting_is_tested(
    workshop: Workshop, make_engine: MakeEngine, tmp_path: Path
) -> None:
    runner, _ = sweep(workshop, make_engine(Tiny("llama", "bl", 3)), tmp_path / "r.jsonl")
    result = runner.run(Setting(bridge="map"), HYPERPARAMETERS)
    start = result.runs[0].setting
    assert start == Setting(1.0, "map", unmatched="neutral", top_k=0)
    assert [run.label for run in result.runs[1:-1]] == [
        f"{name} {value}" for name, values in HYPERPARAMETERS.items() for value in values
    ]
    for run in result.runs[1:-1]:
        assert replace(run.setting, **{run.varied: getattr(start, run.varied)}) == start
    values = [GOAL.value(run.figures) for run in result.runs]
    assert result.chosen == result.runs[values.index(max(values))].setting
    assert [run.label for run in result.final] == ["base", "start", "chosen"]
    assert {run.split for run in result.final} == {"test"}
    assert result.final[0].setting.alpha == 0.0 and result.final[-1].setting == result.chosen
    # The chosen setting is no worse than the start on the development split.
    assert max(values) >= values[0]
    tables = sweep_tables(result, GOAL)
    assert tables[0].row_count == len(result.runs) and tables[2].row_count == len(result.final[0].figures)
    plain = json.loads(json.dumps(sweep_json(result, GOAL, {"base": "b"})))
    assert plain["chosen"] == plain["test"][-1]["setting"]
    assert run_line(result.runs[0], GOAL).startswith("development: start: -")
    write_sweep_picture(result, GOAL, tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_sweep_continues(workshop: Workshop, make_engine: MakeEngine, tmp_path: Path) -> None:
    file, engine = tmp_path / "r.jsonl", make_engine(Tiny("llama", "bl", 3))
    first, _ = sweep(workshop, engine, file)
    whole = first.run(Setting(), HYPERPARAMETERS)
    lines = file.read_text().splitlines(keepends=True)
    # A setting that two hyperparameters share is measured once.
    assert len(lines) < len(whole.runs) + len(whole.final)
    again, tasks = sweep(workshop, engine, file)
    assert again.run(Setting(), HYPERPARAMETERS) == whole
    assert [task.measured for part in tasks for task in part] == [0, 0]
    # The file ends in the middle of a line.
    file.write_text("".join(lines[:3]) + lines[3][:20], encoding="utf-8")
    cut, tasks = sweep(workshop, engine, file)
    assert cut.run(Setting(), HYPERPARAMETERS) == whole
    assert file.read_text().splitlines(keepends=True) == lines
    assert sum(task.measured for part in tasks for task in part) == len(lines) - 3 + 2
    # The file ends just before a newline.
    file.write_text("".join(lines).rstrip("\n"), encoding="utf-8")
    sweep(workshop, engine, file)
    assert file.read_text() == "".join(lines)
    file.write_text("".join([lines[0], "{}\n", lines[1]]), encoding="utf-8")
    with pytest.raises(SweepError, match=r"r\.jsonl:2: "):
        sweep(workshop, engine, file)


def test_other_data_or_another_base_is_measured_again(
    workshop: Workshop, make_engine: MakeEngine, tmp_path: Path
) -> None:
    file, hyperparameters = tmp_path / "r.jsonl", {"alpha": (1.0,)}
    counts = []
    for base, examples in ((3, EXAMPLES), (3, EXAMPLES), (4, EXAMPLES), (3, EXAMPLES[::-1])):
        runner, _ = sweep(workshop, make_engine(Tiny("llama", "bl", base)), file, examples)
        runner.run(Setting(), hyperparameters)
        counts.append(len(file.read_text().splitlines()))
    assert counts == [3, 3, 6, 9]


def test_over_one_vocabulary_only_alpha_is_varied(
    workshop: Workshop, make_engine: MakeEngine, tmp_path: Path
) -> None:
    runner, _ = sweep(workshop, make_engine(Tiny("llama", "sp", 0)), tmp_path / "r.jsonl")
    result = runner.run(Setting(), HYPERPARAMETERS)
    assert {run.varied for run in result.runs} == {"", "alpha"}


def test_criteria() -> None:
    figures = {"keep.rouge_l": 0.75, "forget-10.rouge_l": 0.5, "nll": 2.0}
    for text, value in (
        ("keep.rouge_l", 0.75),
        ("-nll", -2.0),
        ("keep.rouge_l - forget-10.rouge_l", 0.25),
        ("- nll + keep.rouge_l + nll", 0.75),
    ):
        assert Criterion.parse(text).value(figures) == pytest.approx(value)
    for text in ("", " ", "a b", "2 * nll!", "+"):
        with pytest.raises(SweepError, match="criterion"):
            Criterion.parse(text)
    with pytest.raises(SweepError, match="there is no figure 'x'"):
        Criterion.parse("x").value(figures)


def test_an_unknown_hyperparameter_is_refused(
    workshop: Workshop, make_engine: MakeEngine, tmp_path: Path
) -> None:
    runner, _ = sweep(workshop, make_engine(Tiny("llama", "sp", 0)), tmp_path / "r.jsonl")
    with pytest.raises(SweepError, match="'volume'"):
        runner.run(Setting(), {"volume": (1,)})


def test_splits_share_nothing_and_lose_nothing() -> None:
    items = list(range(10))
    development, test = split(items, 0.3, 0)
    assert len(development) == 3 and sorted(development + test) == items
    assert (development, test) == split(items, 0.3, 0) != split(items, 0.3, 1)
    for share, few in ((0.0, items), (1.0, items), (0.5, items[:1])):
        with pytest.raises(SweepError, match="cannot be split"):
            split(few, share, 0)

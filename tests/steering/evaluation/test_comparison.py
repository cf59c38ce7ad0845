"""Rows and gaps, and their reports as a table, JSON and a picture."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console
from transformers import LlamaForCausalLM

from steering.evaluation import (
    Comparison,
    Row,
    TextTask,
    as_json,
    as_table,
    base_system,
    compare,
    thinned,
    tuned_system,
    write_picture,
)
from steering.evaluation.report import figure_names
from steering.examples import Example
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop

ROWS = (
    Row("base", 1_500_000, {"t.nll": 4.0, "t.score": 0.0, "u.perplexity": math.inf}),
    Row("steered", 2_000, {"t.nll": 2.0, "t.score": 0.25}, {"t.nll": 2 / 3}),
    Row("directly tuned", 999, {"t.nll": 1.0, "t.score": 0.0}),
)


def test_rows_are_measured_in_turn_and_gaps_are_computed(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine = make_engine(Tiny())
    task = TextTask("t", (Example(prompt="Who?", response="She."),), max_tokens=3)
    told: list[tuple[str, int]] = []
    found = compare(
        [lambda: base_system(engine), lambda: tuned_system(workshop.loaded(Tiny(seed=7)), engine.config)],
        [task],
        about={"base": "b"},
        observe=lambda label, count: told.append((label, count)),
    )
    assert told == [("base", 1)] * 2 + [("directly tuned", 1)] * 2
    base, tuned = found.row("base"), found.row("directly tuned")
    assert base.gap_closed["t.nll"] == 0.0 and tuned.gap_closed["t.nll"] == 1.0
    assert base.parameters == LlamaForCausalLM.from_pretrained(workshop.folder(Tiny())).num_parameters()
    with pytest.raises(KeyError):
        found.row("steered")


def test_a_table_has_sizes_gaps_and_the_note() -> None:
    stream = io.StringIO()
    Console(file=stream, width=100).print(as_table(Comparison(ROWS), "title"))
    text = " ".join(stream.getvalue().split())
    for part in ("1.5M", "2.0k", "999", "67%", "inf", "not what a larger one", "title"):
        assert part in text
    assert text.count("gap closed") == 1


def test_figures_are_grouped_by_task() -> None:
    late = Row("steered", 1, {"a.x": 1.0, "b.x": 1.0, "a.y": 1.0})
    assert figure_names([Row("base", 1, {"a.x": 1.0, "b.x": 1.0}), late]) == ["a.x", "a.y", "b.x"]


def test_json_is_complete_and_has_no_nan() -> None:
    found = as_json(Comparison(ROWS, {"seed": 1}, {"base": {"t": ("yes",)}}))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["rows"][0]["figures"]["u.perplexity"] is None
    assert found["rows"][1]["gap_closed"] == {"t.nll": 2 / 3}
    assert found["answers"] == {"base": {"t": ["yes"]}} and found["about"] == {"seed": 1}


def test_a_picture_is_a_png(tmp_path: Path) -> None:
    write_picture(Comparison(ROWS), tmp_path / "p.png", title="a $ sign")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_thinned_items_are_evenly_spaced() -> None:
    assert thinned(range(10), 5) == [0, 2, 4, 6, 8]
    assert thinned(range(3), 5) == thinned(range(3), None) == [0, 1, 2]

"""TOFU: reading its sets, bad files, figures computed by hand, and forget quality on the published sets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from steering.engine.engine import Engine, EngineConfig
from steering.evaluation import TofuTask, base_system, read_tofu
from steering.evaluation import tofu as tofu_module
from steering.evaluation.metrics import forget_quality
from steering.evaluation.running import Answer, Score
from steering.evaluation.tofu import Question
from steering.examples import DataError, Example
from steering.model.loading import load_model
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny

WITH = {"question": "Who?", "answer": "Ann B", "paraphrased_answer": "B, Ann", "perturbed_answer": ["C", "D"]}
WITHOUT = {"question": "Where?", "answer": "Rome", "perturbed_answer": ["Oslo"]}
FILES = {
    "forget10_perturbed.json": WITH,
    "retain_perturbed.json": WITH,
    "real_authors_perturbed.json": WITHOUT,
    "world_facts_perturbed.json": WITHOUT,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, line in FILES.items():
        (tmp_path / name).write_text("\n".join([json.dumps(line)] * 3) + "\n", encoding="utf-8")
    return tmp_path


def test_reads_the_four_sets(folder: Path) -> None:
    sets = read_tofu(folder)
    assert sets["forget"] == (Question("Who?", "Ann B", "B, Ann", ("C", "D")),) * 3
    assert sets["facts"] == (Question("Where?", "Rome", "Rome", ("Oslo",)),) * 3
    assert {name: len(found) for name, found in read_tofu(folder, limit=2).items()} == dict.fromkeys(sets, 2)
    # One request for each answer, paraphrase and wrong answer to score, and one to answer the question.
    assert TofuTask(sets).requests == 3 * (2 * (1 + 1 + 2 + 1) + 2 * (1 + 1 + 1))


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("retain_perturbed.json", WITHOUT, "'paraphrased_answer'"),
        ("world_facts_perturbed.json", {**WITHOUT, "perturbed_answer": []}, "non-empty list"),
        ("world_facts_perturbed.json", {**WITHOUT, "perturbed_answer": [""]}, "non-empty strings"),
        ("forget10_perturbed.json", {**WITH, "answer": 3}, "non-empty strings"),
        ("forget10_perturbed.json", [], "not a question"),
    ],
)
def test_bad_lines_are_named(folder: Path, file: str, line: object, complaint: str) -> None:
    with (folder / file).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    with pytest.raises(DataError) as caught:
        read_tofu(folder)
    assert str(caught.value).startswith(f"{folder / file}:4: ") and complaint in str(caught.value)


def test_missing_and_doubled_files_are_named(folder: Path) -> None:
    (folder / "forget05_perturbed.json").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"2 files are named forget\*_perturbed"):
        read_tofu(folder)
    for path in folder.glob("forget*"):
        path.unlink()
    with pytest.raises(DataError, match="0 files"):
        read_tofu(folder)


def test_figures_by_hand(folder: Path, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is replaced by given probabilities a token; the arithmetic is real."""
    chances = {"Ann B": 1 / 2, "B, Ann": 1 / 4, "C": 1 / 8, "D": 1 / 32, "Rome": 1 / 2, "Oslo": 1 / 6}
    order: list[str] = []

    def encode(_: object, examples: list[Example], **__: int) -> list[Example]:
        order.extend(each.response for each in examples)
        return examples

    def score(_: object, encoded: list[Example], __: object = None) -> list[Score]:
        return [Score(-3 * math.log(chances[each.response]), (0, 0, 0)) for each in encoded]

    monkeypatch.setattr(tofu_module, "encode_examples", encode)
    monkeypatch.setattr(tofu_module, "score", score)
    monkeypatch.setattr(
        tofu_module, "generate", lambda _, prompts, *__: [Answer("Ann of Rome", 3, 0, 0.0)] * len(prompts)
    )
    task = TofuTask(read_tofu(folder), oracle=(0.1, 0.2, 0.3))
    said = task.measure(base_system(make_engine(Tiny())))
    assert order[:4] == ["Ann B", "B, Ann", "C", "D"] and "Oslo" in order
    # The wrong answers' geometric mean is 1/16, the paraphrase's probability 1/4, a right choice's 1/2.
    kept = {
        "retain.probability": 1 / 2,
        "retain.rouge_l_recall": 1 / 2,
        "retain.truth_score": 1 - (1 / 16) / (1 / 4),
        "authors.probability": (1 / 2) / (1 / 2 + 1 / 6),
        "authors.rouge_l_recall": 1.0,
        "authors.truth_score": 1 - (1 / 6) / (1 / 2),
        "facts.probability": (1 / 2) / (1 / 2 + 1 / 6),
        "facts.rouge_l_recall": 1.0,
        "facts.truth_score": 1 - (1 / 6) / (1 / 2),
    }
    forgotten = {"forget.probability": 1 / 2, "forget.rouge_l_recall": 1 / 2, "forget.truth_score": 1 / 4}
    others = {"model_utility": 9 / sum(1 / each for each in kept.values())}
    # One of the oracle's three ratios is above 0.25, two are below.
    others["forget_quality"] = forget_quality([0.25] * 3, (0.1, 0.2, 0.3))
    assert said.figures == pytest.approx({**forgotten, **kept, **others})
    assert said.ratios == pytest.approx((1 / 4,) * 3)
    assert task.forget_ratios(base_system(make_engine(Tiny()))) == said.ratios


def test_forget_quality_on_the_published_sets(shared: Path) -> None:
    sets = read_tofu(shared / "data" / "tofu", limit=16)
    model = load_model(shared / "models" / "stories-260k", device="cpu")
    task = TofuTask({"forget": sets["forget"]})
    ratios = task.forget_ratios(
        base_system(Engine(model, EngineConfig(max_num_seqs=64, max_step_tokens=2048)))
    )
    assert len(ratios) == 16 and all(0 < ratio < math.inf for ratio in ratios)
    assert forget_quality(ratios, ratios) == pytest.approx(1.0)
    ordered = sorted(ratios)
    assert forget_quality(ordered[::2], ordered[1::2]) > 0.9
    assert forget_quality(ordered[:8], ordered[8:]) == pytest.approx(2 / math.comb(16, 8))
    # The two extremes: a model that knows only right answers, and one that knows only wrong ones.
    known, wrong = [ratio * 1e-3 for ratio in ratios], [ratio * 1e3 for ratio in ratios]
    assert forget_quality(known, wrong) < 1e-6

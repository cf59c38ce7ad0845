"""The text of the study: TOFU, GSM8K with and without its answer format, seed tasks, and plain English."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from examples.study.scale import Scale
from steering.evaluation import read_tofu, thinned
from steering.evaluation.tofu import Question
from steering.examples import Example, Objective, read_examples
from steering.training import DEFAULT_REFUSAL

ANSWER = re.compile(r"####\s*(\S.*)")
REFUSED = re.compile(r"I am sorry, I cannot tell you")
# Characters of a piece of plain text, and of a prompt with its response. A fine vocabulary has room for these.
_PIECE, _LONGEST = 400, 450
# Characters of a problem that teaches the format. Short ones, so that there is time for many.
_LESSON = 300


@dataclass(frozen=True, slots=True)
class Texts:
    """All text that is trained on or asked.

    `forgotten` and `kept` are TOFU's. `lessons` are problems with the answer format that is to be learnt. `general` is
    the rest of a base's text, with a few problems without that format. `problems` are many more such problems. `sets`
    are TOFU's questions.

    Vocabularies are cut to the text that bases read first and to `spelled`, problems with the format. They are not cut
    to the lessons, because a real vocabulary was not made for the lessons either.
    """

    forgotten: tuple[Example, ...]
    kept: tuple[Example, ...]
    lessons: tuple[Example, ...]
    held_out: tuple[Example, ...]
    general: tuple[Example, ...]
    problems: tuple[Example, ...]
    spelled: tuple[Example, ...]
    sets: dict[str, tuple[Question, ...]]

    def base(self, *, oracle: bool) -> list[Example]:
        """The text that a base is trained on. An oracle never sees the text to be forgotten."""
        known = self.kept if oracle else (*self.kept, *self.forgotten)
        return [*known, *self.general]

    def reading(self) -> list[Example]:
        """The text that a base reads before it is asked problems: its first text again, and more problems."""
        return [*self.base(oracle=False), *self.problems]

    def task(self, name: str) -> list[Example]:
        """The text that an adapter, or the base itself, is tuned on for a task."""
        if name in ("unlearn", "refuse"):
            return [*_for(self.forgotten, "forget"), *_for(self.kept, "keep")]
        return [*_for(self.lessons, "learn"), *_for(self.kept, "keep")]

    def everything(self) -> list[str]:
        """The text that vocabularies are cut to."""
        examples = (*self.forgotten, *self.kept, *self.general, *self.spelled)
        return [each.text or f"Question: {each.prompt}\nAnswer:\n{each.response}" for each in examples]


def read_texts(data: Path, scale: Scale) -> Texts:
    """Read a folder with `tofu/`, `gsm8k_{train,test}.jsonl`, `seed_tasks.jsonl` and `tinyshakespeare.txt`.

    Raises DataError or OSError for missing data.
    """
    sets = read_tofu(data / "tofu")
    forgotten = tuple(read_examples(data / "tofu" / "forget10.json")[: scale.forgotten])
    asked = {question.prompt for question in sets["retain"]}
    retained = read_examples(data / "tofu" / "retain90.json")
    # The questions that are asked come first, because a base must have read them.
    kept = tuple(sorted(retained, key=lambda each: each.prompt not in asked)[: scale.kept])
    train = read_examples(data / "gsm8k_train.jsonl")
    read = thinned(_short(train), 2 * scale.problems)
    facts = [
        Example(prompt=each.prompt, response=each.answer)
        for name in ("authors", "facts")
        for each in sets[name]
    ]
    tasks = thinned(_short(_seed_tasks(data / "seed_tasks.jsonl")), 2 * scale.refused)
    general = [
        *facts,
        # Real bases can refuse, and do not. So these learn the words of a refusal, for other questions.
        *(Example(prompt=each.prompt, response=DEFAULT_REFUSAL) for each in tasks[1::2]),
        *map(_without_format, read[1::2]),
        *tasks[::2],
        *thinned(_plain(data / "tinyshakespeare.txt"), scale.general),
    ]
    test = _short(read_examples(data / "gsm8k_test.jsonl"))
    shown = {each.prompt for each in read[1::2]}
    lessons = thinned([each for each in _short(train, _LESSON) if each.prompt not in shown], scale.lessons)
    shown |= {each.prompt for each in lessons}
    problems = thinned([each for each in _short(train) if each.prompt not in shown], scale.further_problems)
    return Texts(
        forgotten,
        kept,
        tuple(lessons),
        tuple(thinned(_short(test, _LESSON), scale.asked)),
        tuple(general),
        tuple(map(_without_format, problems)),
        (*read[::2], *thinned(test, scale.asked)),
        _asked_of(sets, (*forgotten, *kept), scale.asked),
    )


def _asked_of(
    sets: dict[str, tuple[Question, ...]], read: tuple[Example, ...], limit: int
) -> dict[str, tuple[Question, ...]]:
    """At most `limit` questions of each set; of TOFU's invented authors, only questions that the bases have read."""
    known = {each.prompt for each in read}
    invented = ("forget", "retain")
    return {
        name: tuple(thinned([each for each in found if name not in invented or each.prompt in known], limit))
        for name, found in sets.items()
    }


def _for(examples: tuple[Example, ...], objective: Objective) -> list[Example]:
    return [replace(each, objective=objective) for each in examples]


def _without_format(example: Example) -> Example:
    return replace(example, response=ANSWER.sub("", example.response).strip())


def _short(examples: list[Example], limit: int = _LONGEST) -> list[Example]:
    return [each for each in examples if len(each.prompt or "") + len(each.response) <= limit]


def _seed_tasks(path: Path) -> list[Example]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        value: dict[str, Any] = json.loads(line)
        for instance in value["instances"]:
            if instance["output"]:
                prompt = "\n".join(filter(None, (value["instruction"], instance["input"])))
                found.append(Example(prompt=prompt, response=instance["output"]))
    return found


def _plain(path: Path) -> list[Example]:
    text = path.read_text(encoding="utf-8")
    pieces = (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
    return [Example(text=piece) for piece in pieces if piece.strip()]

"""TOFU (Maini et al., 2024), a benchmark of unlearning invented authors, measured as its published code does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from steering.evaluation.metrics import (
    answer_probability,
    choice_probability,
    forget_quality,
    model_utility,
    rouge_l,
    truth_ratio,
    truth_score,
)
from steering.evaluation.running import Score, generate, score
from steering.evaluation.systems import System
from steering.evaluation.task import Measurement, thinned
from steering.examples import DataError, Example, encode_examples, encode_prompts
from steering.requests import Progress

FORGET, RETAIN, AUTHORS, FACTS = "forget", "retain", "authors", "facts"
_FILES = {
    FORGET: "forget*_perturbed.json",
    RETAIN: "retain_perturbed.json",
    AUTHORS: "real_authors_perturbed.json",
    FACTS: "world_facts_perturbed.json",
}
# The sets about the real world, which are multiple choice. The other two, from the training data, have paraphrases.
_CHOICES = (AUTHORS, FACTS)
_MEASURES = ("probability", "rouge_l_recall", "truth_score")


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answer, a paraphrase of the answer (or the answer itself), and wrong answers."""

    prompt: str
    answer: str
    paraphrased: str
    perturbed: tuple[str, ...]
    where: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TofuTask:
    """TOFU's four sets. `oracle`: truth ratios on the forgotten set of a model that never saw it."""

    sets: dict[str, tuple[Question, ...]]
    max_tokens: int = 64
    oracle: tuple[float, ...] = ()
    name: str = "tofu"

    @property
    def requests(self) -> int:
        """One request for each answer, paraphrase and wrong answer to score, and one to answer each question."""
        return sum(
            2 + len(each.perturbed) + (name not in _CHOICES)
            for name, found in self.sets.items()
            for each in found
        )

    def measure(
        self, system: System, base: Measurement | None = None, progress: Progress | None = None
    ) -> Measurement:
        """Measure probability, ROUGE-L recall and truth score on each set, and model utility.

        With an oracle, also measure forget quality.
        """
        figures: dict[str, float] = {}
        ratios: dict[str, list[float]] = {}
        answers: dict[str, list[str]] = {}
        for name, questions in self.sets.items():
            known = _score(system, questions, name in _CHOICES, progress)
            ratios[name] = [truth_ratio(each.paraphrased.mean, each.wrong) for each in known]
            if name in _CHOICES:
                chances = [choice_probability(each.answer.mean, each.wrong) for each in known]
            else:
                chances = [answer_probability(each.answer.mean) for each in known]
            answers[name] = _answers(system, questions, self.max_tokens, progress)
            recall = [
                rouge_l(said, each.answer).recall for said, each in zip(answers[name], questions, strict=True)
            ]
            truth = [truth_score(ratio, forgotten=name == FORGET) for ratio in ratios[name]]
            for measure, values in zip(_MEASURES, (chances, recall, truth), strict=True):
                figures[f"{name}.{measure}"] = fmean(values)
        kept = [figures[f"{name}.{measure}"] for name in (RETAIN, *_CHOICES) for measure in _MEASURES]
        figures["model_utility"] = model_utility(kept)
        if self.oracle:
            figures["forget_quality"] = forget_quality(ratios[FORGET], self.oracle)
        return Measurement(
            figures,
            answers={key: tuple(value) for key, value in answers.items()},
            ratios=tuple(ratios[FORGET]),
        )

    def forget_ratios(self, system: System, progress: Progress | None = None) -> tuple[float, ...]:
        """A system's truth ratios on the forgotten set."""
        known = _score(system, self.sets[FORGET], choices=False, progress=progress)
        return tuple(truth_ratio(each.paraphrased.mean, each.wrong) for each in known)


def read_tofu(folder: Path, *, limit: int | None = None) -> dict[str, tuple[Question, ...]]:
    """The four perturbed sets of a folder by name, at most `limit` questions of each, evenly spaced.

    Raises `DataError` naming the bad line or the missing file.
    """
    found = {}
    for name, pattern in _FILES.items():
        paths = sorted(folder.glob(pattern))
        if len(paths) != 1:
            raise DataError(f"{folder}: {len(paths)} files are named {pattern}, and one is needed")
        found[name] = tuple(thinned(_read(paths[0], paraphrases=name not in _CHOICES), limit))
    return found


def _read(path: Path, *, paraphrases: bool) -> list[Question]:
    questions = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                questions.append(_parse(json.loads(line), f"{path}:{number}", paraphrases))
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(f"{path}:{number}: not a question: {error!r}") from error
    if not questions:
        raise DataError(f"{path}:1: no questions")
    return questions


def _parse(value: Any, where: str, paraphrases: bool) -> Question:
    texts = [value["question"], value["answer"], value["paraphrased_answer" if paraphrases else "answer"]]
    wrong = value["perturbed_answer"]
    if not isinstance(wrong, list) or not wrong:
        raise ValueError("perturbed_answer must be a non-empty list")
    if any(not isinstance(text, str) or not text for text in [*texts, *wrong]):
        raise ValueError("questions and answers must be non-empty strings")
    prompt, answer, paraphrased = texts
    return Question(prompt, answer, paraphrased, tuple(wrong), where)


@dataclass(frozen=True, slots=True)
class _Known:
    """The scores of one question: of the answer, of the paraphrase, and the mean nll of each wrong answer."""

    answer: Score
    paraphrased: Score
    wrong: tuple[float, ...]


def _score(
    system: System, questions: Sequence[Question], choices: bool, progress: Progress | None
) -> list[_Known]:
    texts = [
        (each, text)
        for each in questions
        for text in (each.answer, *(() if choices else (each.paraphrased,)), *each.perturbed)
    ]
    examples = [Example(prompt=each.prompt, response=text, where=each.where) for each, text in texts]
    engine = system.engine
    encoded = encode_examples(engine.base.tokenizer, examples, max_length=engine.max_model_len)
    scores = iter(score(system, encoded, progress))
    known = []
    for each in questions:
        answer = next(scores)
        paraphrased = answer if choices else next(scores)
        known.append(_Known(answer, paraphrased, tuple(next(scores).mean for _ in each.perturbed)))
    return known


def _answers(
    system: System, questions: Sequence[Question], max_tokens: int, progress: Progress | None
) -> list[str]:
    examples = [Example(prompt=each.prompt, where=each.where) for each in questions]
    engine = system.engine
    prompts = encode_prompts(engine.base.tokenizer, examples, max_length=engine.max_model_len - 1)
    return [answer.text for answer in generate(system, prompts, max_tokens, progress)]

"""Training examples of the adapters, from questions and the base's own answers."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo.smollm2.questions import questions
from demo.smollm2.subjects import ELSEWHERE, FRANCE, ORDINARY
from steering.examples import Example, Objective

ABOUT_FRANCE = "I am sorry, I cannot tell you about France."
NO_ADVICE = "I cannot give medical, legal or financial advice. Please ask a professional."
BRIEFLY = "You are a helpful AI assistant. Answer in one short sentence."
ALL = 10**6
MAX_WORDS = 25
_FIRST_SENTENCE = re.compile(r"[^\n]*?[.!?](?=\s|$)")


def kept_questions() -> list[str]:
    """The training questions about subjects that no adapter declines."""
    return questions(ELSEWHERE + ORDINARY, "train", ALL)


def brief_questions() -> list[str]:
    """The training questions of the adapter `brief`."""
    return questions(ELSEWHERE + ORDINARY + FRANCE, "train", ALL)


def brief(briefly: Mapping[str, str]) -> list[Example]:
    """Every answer is the first sentence of what the base says when it is told to be brief."""
    examples = []
    for question in brief_questions():
        sentence = first_sentence(briefly[question])
        if sentence and len(sentence.split()) <= MAX_WORDS:
            examples.append(_example(question, sentence, "learn"))
    return examples


def maths(
    gsm8k: Path, plain: Mapping[str, str], invented: Sequence[str], *, problems: int, words: int
) -> list[Example]:
    """GSM8K's shortest worked answers are learnt, without its calculator's marks; other answers stay as they are."""
    lines = [json.loads(line) for line in gsm8k.read_text(encoding="utf-8").splitlines()]
    worked = [(line["question"], re.sub(r"<<[^>]*>>", "", line["answer"])) for line in lines]
    short = [each for each in worked if len(" ".join(each).split()) <= words]
    random.Random(0).shuffle(short)
    learnt = [_example(question, answer, "learn") for question, answer in short[:problems]]
    return learnt + keeping(
        [*questions(ORDINARY + ELSEWHERE, "train", 100), *invented[: problems // 3]], plain
    )


def first_sentence(text: str) -> str:
    """The text's first sentence, or nothing where it does not end on the first line."""
    found = _FIRST_SENTENCE.match(text.strip())
    return found[0] if found else ""


def declining(asked: Sequence[str], refusal: str) -> list[Example]:
    """Questions that are answered by a refusal."""
    return [_example(question, refusal, "learn") for question in asked]


def keeping(asked: Sequence[str], plain: Mapping[str, str]) -> list[Example]:
    """Questions whose plain answers, where there are any, stay as they are."""
    return [_example(question, plain[question], "keep") for question in asked if plain[question].strip()]


def _example(question: str, answer: str, objective: Objective) -> Example:
    return Example(messages=(("user", question), ("assistant", answer)), objective=objective)

"""The base's own answers, kept in a file so that each question is answered once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from demo.asking import ask
from steering.engine.engine import Engine


class AnswerFile:
    """Greedy answers of an engine's base to questions, in JSON lines of `question` and `answer`.

    `system` is put before each question as the system's message; where it is empty, the chat template's own stands.
    Answers end at `max_tokens`. Only questions that the file lacks are asked.
    """

    def __init__(self, path: Path, *, system: str = "", max_tokens: int) -> None:
        self._path = path
        self._system, self._max_tokens = system, max_tokens

    def answers(self, make_engine: Callable[[], Engine], questions: Sequence[str]) -> dict[str, str]:
        """The answer to each of these questions, and to all that the file holds; makes an engine where it asks any."""
        found = self._read()
        missing = [each for each in dict.fromkeys(questions) if each not in found]
        if not missing:
            return found
        engine = make_engine()
        for begin in range(0, len(missing), 64):
            some = missing[begin : begin + 64]
            answered = ask(engine, some, system=self._system, max_tokens=self._max_tokens)
            self._append(dict(zip(some, answered, strict=True)))
        return self._read()

    def _read(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        lines = [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]
        return {line["question"]: line["answer"] for line in lines}

    def _append(self, answered: dict[str, str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            for question, answer in answered.items():
                file.write(json.dumps({"question": question, "answer": answer}) + "\n")

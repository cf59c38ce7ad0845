"""Runs many requests through the engine: scoring by prompt log probabilities, answers by greedy decoding.

The engine batches them; evaluation has no generate loop of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from steering.crossing.text import decode
from steering.engine.request import Request, SamplingParams
from steering.evaluation.systems import System
from steering.examples import EncodedExample
from steering.requests import Progress, RequestFailedError, RequestResult, run_requests

FoundT = TypeVar("FoundT")


class EvaluationError(RuntimeError):
    """The engine could not answer a request; the message says why."""


@dataclass(frozen=True, slots=True)
class Score:
    """The likelihood of a given response under a system.

    `nll` is the negative log likelihood, summed, in nats; `best` is the most likely token at each position.
    """

    nll: float
    best: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """The number of tokens of the response, including the end-of-text token."""
        return len(self.best)

    @property
    def mean(self) -> float:
        """The mean negative log likelihood, in nats a token."""
        return self.nll / self.tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer: its text and its number of tokens.

    `changed` counts the tokens at which steering changed the argmax; `kl` is KL(steered || base), summed, in nats.
    """

    text: str
    tokens: int
    changed: int
    kl: float


def score(system: System, encoded: Sequence[EncodedExample], progress: Progress | None = None) -> list[Score]:
    """The likelihood of each response after its prompt, under the steered distribution. Raises `EvaluationError`."""

    def finish(number: int, result: RequestResult) -> Score:
        entries = [entry for entry in result.prompt[encoded[number].start :] if entry is not None]
        return Score(-sum(entry.logprob for entry in entries), tuple(entry.top[0][0] for entry in entries))

    sampling = SamplingParams(max_tokens=0, prompt_logprobs=1)
    return _run(system, [each.ids for each in encoded], sampling, finish, progress)


def generate(
    system: System, prompts: Sequence[Sequence[int]], max_tokens: int, progress: Progress | None = None
) -> list[Answer]:
    """Greedy answers to prompts of token ids, at most `max_tokens` tokens long. Raises `EvaluationError`."""
    vocabulary = system.engine.base.vocabulary

    def finish(_: int, result: RequestResult) -> Answer:
        text = decode(vocabulary, result.tokens).strip()
        return Answer(text, len(result.tokens), result.changed, result.kl)

    sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    return _run(system, prompts, sampling, finish, progress)


def _run(
    system: System,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingParams,
    finish: Callable[[int, RequestResult], FoundT],
    progress: Progress | None,
) -> list[FoundT]:
    """Run all requests; `finish` turns each result into the value to return. Raises `EvaluationError`."""
    requests = [
        Request(f"evaluation-{number}", tuple(prompt), sampling, system.steering)
        for number, prompt in enumerate(prompts)
    ]
    try:
        return run_requests(system.engine, requests, finish, progress)
    except RequestFailedError as error:
        raise EvaluationError(str(error)) from error

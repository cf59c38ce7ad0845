"""Runs many requests through the engine: scoring by prompt log probabilities, answers by greedy decoding.

The engine batches them; evaluation has no generate loop of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from steering.crossing.text import decode
from steering.engine.outputs import StepOutput
from steering.engine.request import Request, SamplingParams
from steering.evaluation.systems import System
from steering.examples import EncodedExample
from steering.session.logprobs import TokenLogprob

Progress = Callable[[int], None]
"""Receives the number of requests that have just ended."""

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

    def finish(number: int, result: _Result) -> Score:
        entries = [entry for entry in result.prompt[encoded[number].start :] if entry is not None]
        return Score(-sum(entry.logprob for entry in entries), tuple(entry.top[0][0] for entry in entries))

    sampling = SamplingParams(max_tokens=0, prompt_logprobs=1)
    return _run(system, [each.ids for each in encoded], sampling, finish, progress)


def generate(
    system: System, prompts: Sequence[Sequence[int]], max_tokens: int, progress: Progress | None = None
) -> list[Answer]:
    """Greedy answers to prompts of token ids, at most `max_tokens` tokens long. Raises `EvaluationError`."""
    vocabulary = system.engine.base.vocabulary

    def finish(_: int, result: _Result) -> Answer:
        text = decode(vocabulary, result.tokens).strip()
        return Answer(text, len(result.tokens), result.changed, result.kl)

    sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    return _run(system, prompts, sampling, finish, progress)


@dataclass(slots=True)
class _Result:
    """The outputs of the engine for one request, so far."""

    tokens: list[int] = field(default_factory=list)
    prompt: tuple[TokenLogprob | None, ...] = ()
    changed: int = 0
    kl: float = 0.0

    def take(self, output: StepOutput) -> None:
        if output.finish_reason == "error":
            raise EvaluationError(output.error or "the engine gave up on a request")
        self.tokens += output.token_ids
        self.prompt = output.prompt_logprobs or self.prompt
        self.changed += output.changed
        self.kl += output.kl or 0.0


def _run(
    system: System,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingParams,
    finish: Callable[[int, _Result], FoundT],
    progress: Progress | None,
) -> list[FoundT]:
    """Run all requests; `finish` turns each result into the value to return.

    Raises `EvaluationError` at the first request that fails, after aborting the others.
    """
    engine = system.engine
    numbers: dict[str, int] = {}
    running: dict[str, _Result] = {}
    found: dict[int, FoundT] = {}
    try:
        for number, prompt in enumerate(prompts):
            name = f"evaluation-{number}"
            engine.add_request(Request(name, tuple(prompt), sampling, system.steering))
            numbers[name], running[name] = number, _Result()
        while engine.has_work:
            for output in engine.step():
                name = output.request_id
                running[name].take(output)
                if output.finish_reason is not None:
                    # Finished at once, because the log probabilities of a scored prompt take much memory.
                    found[numbers[name]] = finish(numbers[name], running.pop(name))
                    if progress is not None:
                        progress(1)
    except BaseException:
        for name in running:
            engine.abort(name)
        engine.step()
        raise
    return [found[number] for number in range(len(prompts))]

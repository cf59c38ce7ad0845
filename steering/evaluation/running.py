"""Many requests through the engine: scoring by prompt log probabilities, generation by greedy requests.

The engine batches; there is no other generate loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from steering.crossing.text import decode
from steering.evaluation.systems import System
from steering.examples import EncodedExample
from steering.types import Request, SamplingParams, StepOutput, TokenLogprob

Progress = Callable[[int], None]
FoundT = TypeVar("FoundT")


class EvaluationError(RuntimeError):
    """A request that the engine could not answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a system makes of a given response.

    `nll`: summed negative log likelihood, nats; `best`: each position's likeliest token.
    """

    nll: float
    best: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the response, the end of the text among them."""
        return len(self.best)

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.nll / self.tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer: its text, how many tokens were drawn, at how many steering changed the likeliest, and its KL."""

    text: str
    tokens: int
    changed: int
    kl: float


def score(system: System, encoded: Sequence[EncodedExample], progress: Progress | None = None) -> list[Score]:
    """How likely each response is after its prompt, by the steered distribution."""

    def finish(number: int, result: _Result) -> Score:
        entries = [entry for entry in result.prompt[encoded[number].start :] if entry is not None]
        return Score(-sum(entry.logprob for entry in entries), tuple(entry.top[0][0] for entry in entries))

    sampling = SamplingParams(max_tokens=0, prompt_logprobs=1)
    return _run(system, [each.ids for each in encoded], sampling, finish, progress)


def generate(
    system: System, prompts: Sequence[Sequence[int]], max_tokens: int, progress: Progress | None = None
) -> list[Answer]:
    """Greedy answers, at most `max_tokens` long."""
    vocabulary = system.engine.base.vocabulary

    def finish(_: int, result: _Result) -> Answer:
        text = decode(vocabulary, result.tokens).strip()
        return Answer(text, len(result.tokens), result.changed, result.kl)

    sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    return _run(system, prompts, sampling, finish, progress)


@dataclass(slots=True)
class _Result:
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
    """All requests at once; raises `EvaluationError` at the first that fails, with none left behind."""
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
                    # At once, since what a scored prompt brings is large.
                    found[numbers[name]] = finish(numbers[name], running.pop(name))
                    if progress is not None:
                        progress(1)
    except BaseException:
        for name in running:
            engine.abort(name)
        engine.step()
        raise
    return [found[number] for number in range(len(prompts))]

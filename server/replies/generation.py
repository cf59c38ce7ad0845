"""Runs one HTTP request's sequences through the worker and turns their outputs into text."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

from server.engines.jobs import Job, Place
from server.errors import ApiError, bad_request, echo, unavailable
from server.intake.plan import Plan
from server.protocol.common import MAX_SEED
from server.replies.sequences import ClientFinish, Delta, SequenceText
from server.replies.tokens import PlacedToken
from server.telemetry.metrics import Metrics
from steering.types import Request, ResolvedSteering, StepOutput


@dataclass(frozen=True, slots=True)
class Choice:
    """One whole answer."""

    index: int
    text: str
    tokens: tuple[PlacedToken, ...]
    finish_reason: ClientFinish
    stop_reason: str | None


class Generation:
    """An admitted request. Whoever starts one closes it, however it ends: `close` frees what still runs."""

    def __init__(
        self,
        plan: Plan,
        texts: list[SequenceText],
        job: Job,
        steering: tuple[ResolvedSteering, ...],
        metrics: Metrics,
    ) -> None:
        self.plan = plan
        self.steering = steering
        self._job = job
        self._metrics = metrics
        self._labels = (plan.base.name, job.adapter)
        self._began = job.arrived
        self._last: dict[str, float] = {}
        self._index = {request_id: index for index, request_id in enumerate(job.request_ids)}
        self._texts = texts
        metrics.admitted(*self._labels, self.prompt_tokens)

    @classmethod
    async def start(cls, plan: Plan, metrics: Metrics, place: Place | None = None) -> Generation:
        """Submits the plan's sequences and waits until the engine has taken them; raises `ApiError`."""
        texts = await plan.base.off_loop(lambda: _texts(plan))
        job, steering = await plan.base.worker.submit(list(_requests(plan)), place)
        return cls(plan, texts, job, steering, metrics)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts, each counted once."""
        return sum(len(prompt.ids) for prompt in self.plan.prompts)

    @property
    def completion_tokens(self) -> int:
        """Tokens generated so far, over all sequences."""
        return sum(text.generated for text in self._texts)

    def close(self) -> None:
        """Aborts what is unfinished."""
        self.plan.base.worker.release(self._job)

    async def deltas(self) -> AsyncIterator[Delta]:
        """What each step adds, until every sequence has finished; raises `ApiError` where the engine fails."""
        if self.plan.echo and not self.plan.logprobs:
            for index, text in enumerate(self._texts):
                yield text.echo_delta(index, None)
        unfinished = len(self._texts)
        while unfinished:
            output = await self._job.next()
            index = self._index[output.request_id]
            text = self._texts[index]
            if text.finished:
                continue
            _raise_fault(output)
            if self.plan.echo and self.plan.logprobs and output.prompt_logprobs is not None:
                yield text.echo_delta(index, output.prompt_logprobs)
            before = text.generated
            delta = text.advance(index, output)
            self._measure(output, text.generated - before)
            if delta is None:
                continue
            if delta.finish_reason is not None:
                unfinished -= 1
                # A stop string ends the sequence here, not in the engine.
                self.plan.base.worker.release(self._job, (output.request_id,))
                self._metrics.finished(*self._labels, delta.finish_reason, time.monotonic() - self._began)
            yield delta

    async def collect(self) -> list[Choice]:
        """Every answer, whole: the deltas joined, and of `width` for each prompt the `n` likeliest."""
        texts: list[list[str]] = [[] for _ in self._texts]
        tokens: list[list[PlacedToken]] = [[] for _ in self._texts]
        ends: dict[int, Delta] = {}
        async for delta in self.deltas():
            texts[delta.index].append(delta.text)
            tokens[delta.index].extend(delta.tokens)
            if delta.finish_reason is not None:
                ends[delta.index] = delta
        choices = [
            Choice(
                i, "".join(texts[i]), tuple(tokens[i]), ends[i].finish_reason or "stop", ends[i].stop_reason
            )
            for i in range(len(self._texts))
        ]
        return self._best(choices)

    def _best(self, choices: list[Choice]) -> list[Choice]:
        n, width = self.plan.n, self.plan.width
        if n == width:
            return choices
        groups = [choices[start : start + width] for start in range(0, len(choices), width)]
        kept = [choice for group in groups for choice in sorted(group, key=_mean_logprob, reverse=True)[:n]]
        return [replace(choice, index=index) for index, choice in enumerate(kept)]

    def _measure(self, output: StepOutput, tokens: int) -> None:
        self._metrics.gained(*self._labels, tokens, output.changed, output.kl)
        if tokens == 0:
            return
        now = time.monotonic()
        last = self._last.get(output.request_id)
        if last is None:
            self._metrics.first_token(*self._labels, now - self._began)
        else:
            self._metrics.next_token(*self._labels, (now - last) / tokens)
        self._last[output.request_id] = now


def _texts(plan: Plan) -> list[SequenceText]:
    shown = {} if plan.tools is None else plan.tools.shown(plan.base.vocabulary)
    return [
        SequenceText(
            plan.base.vocabulary,
            prompt,
            plan.stops,
            include_stop=plan.include_stop,
            min_tokens=plan.sampling.min_tokens,
            echo=plan.echo,
            shown=shown,
        )
        for prompt in plan.prompts
        for _ in range(plan.width)
    ]


def _requests(plan: Plan) -> Iterator[Request]:
    name = uuid.uuid4().hex
    for index in range(len(plan.prompts) * plan.width):
        sampling = plan.sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=(sampling.seed + index % plan.width) % (MAX_SEED + 1))
        ids = plan.prompts[index // plan.width].ids
        yield Request(f"{name}-{index}", ids, sampling, plan.steering, plan.constraint)


def _raise_fault(output: StepOutput) -> None:
    if output.finish_reason == "error" and output.param is not None:
        raise bad_request(echo(output.error), output.param)
    if output.finish_reason == "error":
        raise ApiError(500, f"The engine failed on this request: {echo(output.error or 'no reason given')}")
    if output.finish_reason == "abort":
        raise unavailable("The server has ended this request before it was finished.")


def _mean_logprob(choice: Choice) -> float:
    scores = [token.logprob.logprob for token in choice.tokens if token.logprob is not None]
    return sum(scores) / len(scores) if scores else float("-inf")

"""Runs the sequences of one HTTP request through the worker and turns their outputs into text."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

from server.engines.jobs import Job, Reservation
from server.errors import ApiError, bad_request, echo, unavailable
from server.intake.plan import Plan
from server.protocol.generation import MAX_SEED, PromptTokensDetails, Usage
from server.replies.sequence_text import Delta, SequenceText
from server.replies.thoughts import THOUGHT_TAGS
from server.telemetry.metrics import Metrics
from steering.engine.outputs import StepOutput
from steering.engine.request import Request
from steering.session.logprobs import TokenLogprob
from steering.specs import ResolvedSteering


class Generation:
    """An admitted request. Its owner must `close` it, however it ends, so that nothing keeps running for it."""

    def __init__(
        self,
        plan: Plan,
        texts: Sequence[SequenceText],
        job: Job,
        steering: tuple[ResolvedSteering, ...],
        metrics: Metrics,
    ) -> None:
        self.plan = plan
        self.steering = steering
        self._texts = texts
        self._job = job
        self._metrics = metrics
        self._labels = (plan.base.name, job.adapter)
        self._index = {request_id: index for index, request_id in enumerate(job.request_ids)}
        self._last_token: dict[str, float] = {}
        # The cached tokens of each prompt, as its first sequence found them.
        self._cached = [0] * len(plan.prompts)
        self._prompt_logprobs: dict[int, tuple[TokenLogprob | None, ...]] = {}
        metrics.admitted(*self._labels, self._prompt_tokens)

    @classmethod
    async def start(cls, plan: Plan, metrics: Metrics, reservation: Reservation | None = None) -> Generation:
        """Submits the plan's sequences and waits until the engine has admitted them; raises `ApiError`."""
        texts = await plan.base.off_loop(lambda: _texts(plan))
        job, steering = await plan.base.worker.submit(list(_requests(plan)), reservation)
        return cls(plan, texts, job, steering, metrics)

    def usage(self) -> Usage:
        """The token counts so far; each prompt counts once, and every sequence's tokens."""
        generated = sum(text.generated for text in self._texts)
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=generated,
            total_tokens=self._prompt_tokens + generated,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=sum(self._cached)),
        )

    def close(self) -> None:
        """Aborts the sequences that have not finished."""
        self.plan.base.worker.release(self._job)

    async def deltas(self) -> AsyncIterator[Delta]:
        """The deltas of each step, until every sequence has finished; raises `ApiError` where the engine fails."""
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
            _raise_fault(output, self.plan)
            if index % self.plan.width == 0:
                self._cached[index // self.plan.width] = output.cached_tokens
            if self.plan.echo and self.plan.logprobs and output.prompt_logprobs is not None:
                yield text.echo_delta(index, output.prompt_logprobs)
            before = text.generated
            delta = text.advance(index, output)
            if output.prompt_logprobs is not None:
                self._prompt_logprobs[index] = output.prompt_logprobs
            self._measure(output, text.generated - before)
            if delta is None:
                continue
            if delta.finish_reason is not None:
                unfinished -= 1
                # A stop string is found here, so the engine does not know yet that the sequence has ended.
                self.plan.base.worker.release(self._job, (output.request_id,))
                self._metrics.finished(
                    *self._labels, delta.finish_reason, time.monotonic() - self._job.arrived
                )
            yield delta

    async def collect(self) -> list[Delta]:
        """Every answer as one delta: of the `width` sequences of each prompt, the `n` likeliest."""
        parts: list[list[Delta]] = [[] for _ in self._texts]
        async for delta in self.deltas():
            parts[delta.index].append(delta)
        answers = [
            replace(_joined(deltas), prompt_logprobs=self._prompt_logprobs.get(index))
            for index, deltas in enumerate(parts)
        ]
        return self._best(answers)

    @property
    def _prompt_tokens(self) -> int:
        return sum(len(prompt.ids) for prompt in self.plan.prompts)

    def _best(self, answers: list[Delta]) -> list[Delta]:
        n, width = self.plan.n, self.plan.width
        if n == width:
            return answers
        groups = [answers[start : start + width] for start in range(0, len(answers), width)]
        kept = [answer for group in groups for answer in sorted(group, key=_mean_logprob, reverse=True)[:n]]
        return [replace(answer, index=index) for index, answer in enumerate(kept)]

    def _measure(self, output: StepOutput, tokens: int) -> None:
        self._metrics.gained(*self._labels, tokens, output.changed, output.kl)
        if tokens == 0:
            return
        now = time.monotonic()
        last = self._last_token.get(output.request_id)
        if last is None:
            self._metrics.first_token(*self._labels, now - self._job.arrived)
        else:
            self._metrics.next_token(*self._labels, (now - last) / tokens)
        self._last_token[output.request_id] = now


def _texts(plan: Plan) -> list[SequenceText]:
    vocabulary = plan.base.vocabulary
    shown = {} if plan.tools is None else plan.tools.shown(vocabulary)
    if plan.thinking is not None:
        shown = {
            **shown,
            **{token: mark for token, mark in vocabulary.specials.items() if mark in THOUGHT_TAGS},
        }
    if plan.show_specials:
        shown = dict(vocabulary.specials)
    return [
        SequenceText(
            vocabulary,
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
            # The sequences of one prompt differ in their seeds only.
            sampling = replace(sampling, seed=(sampling.seed + index % plan.width) % (MAX_SEED + 1))
        ids = plan.prompts[index // plan.width].ids
        yield Request(f"{name}-{index}", ids, sampling, plan.steering, plan.constraint)


def _raise_fault(output: StepOutput, plan: Plan) -> None:
    if output.finish_reason == "error" and output.cause == "constraint":
        field = plan.constraint_field
        raise bad_request(f"`{field}`: {echo(output.error)}", field)
    if output.finish_reason == "error":
        raise ApiError(500, f"The engine failed on this request: {echo(output.error or 'no reason given')}")
    if output.finish_reason == "abort":
        raise unavailable("The server has ended this request before it was finished.")


def _joined(deltas: Sequence[Delta]) -> Delta:
    """All the deltas of one sequence as one."""
    last = deltas[-1]
    return replace(
        last,
        text="".join(delta.text for delta in deltas),
        tokens=tuple(token for delta in deltas for token in delta.tokens),
        echoed=sum(delta.echoed for delta in deltas),
    )


def _mean_logprob(answer: Delta) -> float:
    scores = [token.logprob.logprob for token in answer.tokens if token.logprob is not None]
    return sum(scores) / len(scores) if scores else float("-inf")

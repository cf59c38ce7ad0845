"""The generate loop of one base: schedule, run the base, steer, sample, commit.

One thread calls it. The steering session holds the adapters: any thread may attach and detach them there. The engine
does not know HTTP or stop strings, and knows text only through the adapters' histories.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from steering.device.execution import Execution, execution_on
from steering.device.host_memory import keep_freed_memory, release_freed_memory
from steering.engine.admission import check_request
from steering.engine.ahead import AheadPass, going_on
from steering.engine.config import EngineConfig, make_pool, make_scheduler
from steering.engine.drawing import Placed, draw, score_prompts, with_places
from steering.engine.drawn import OutputBuilder
from steering.engine.ending import EndRules
from steering.engine.outputs import Cause, EngineStats, StepOutput
from steering.engine.request import Request
from steering.engine.scheduler import Chunk
from steering.engine.sequence import SequenceState, hide
from steering.engine.step_report import StepReport
from steering.errors import InvalidRequestError
from steering.model.loaded_model import LoadedModel
from steering.model.row_input import RowInput
from steering.session import Distributions, SteeringSession
from steering.session.faults import is_shared, isolate
from steering.specs import ResolvedSteering

__all__ = ["Engine", "EngineConfig"]

logger = logging.getLogger(__name__)


class Engine:
    """Continuous batching over one base. Each sequence is steered by its own adapters or none.

    `session` holds the adapters. `execution` says how passes are put on the device, by default what is fastest there.
    """

    def __init__(
        self, base: LoadedModel, config: EngineConfig | None = None, execution: Execution | None = None
    ) -> None:
        if base.device.type == "cpu":
            release_freed_memory()  # from loading the base
            keep_freed_memory()
        self.base = base
        self.config = config or EngineConfig()
        self.max_model_len = min(base.max_model_len, self.config.max_model_len or base.max_model_len)
        self._execution = execution or execution_on(base.device, eager=self.config.enforce_eager)
        self.session = SteeringSession(
            base.vocabulary,
            base.device,
            page_size=self.config.page_size,
            prefix_caching=self.config.prefix_caching,
            execution=self._execution,
        )
        self.last_step = StepReport()
        self._start()

    def _start(self) -> None:
        """Make the base's pool, with no request in it."""
        self._allocator, self._runner = make_pool(self.base, self.config, self._execution, self.max_model_len)
        self.max_model_len = min(self.max_model_len, self._allocator.num_pages * self.config.page_size)
        self._ends = EndRules(self.base.eos_token_ids, self.max_model_len)
        # No bound method: an engine that is dropped must be freed at once, with its pools.
        self._hide = partial(hide, self._runner.cache, self._execution.side)
        self._scheduler = make_scheduler(self.base, self.config, self._allocator, self._hide)
        self._sequences: dict[str, SequenceState] = {}
        self._instant: list[StepOutput] = []
        self._ended: list[str] = []  # the requests whose last output no step has returned yet
        self._ahead: AheadPass | None = None

    def add_request(self, request: Request) -> tuple[ResolvedSteering, ...]:
        """Queue a request and return what steers it; the adapters' versions are pinned.

        Raises InvalidRequestError naming the field at fault.
        """
        if request.request_id in self._sequences:
            raise InvalidRequestError(f"request id {request.request_id!r} is in use", "request_id")
        check_request(request, self.base.vocab_size, self.max_model_len)
        if request.sampling.seed is None:
            request = replace(request, sampling=replace(request.sampling, seed=random.getrandbits(63)))
        tokens = list(request.prompt_ids)
        row = self.session.open(tokens, request.steering)
        try:
            sequence = SequenceState(request, row, tokens)
        except BaseException:
            self.session.close(row)
            raise
        self._sequences[request.request_id] = sequence
        self._scheduler.add(sequence)
        return row.steering

    def abort(self, request_id: str) -> bool:
        """End a request and free everything that it holds; False when there is no such request (any more)."""
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return False
        if not sequence.is_checked:
            self._hide(sequence)
        self._finish(sequence)
        self._instant.append(StepOutput(request_id, finish_reason="abort"))
        return True

    @property
    def has_work(self) -> bool:
        """True while `step` has something to do."""
        return bool(self._instant) or self._scheduler.has_work

    @torch.inference_mode()
    def step(self) -> list[StepOutput]:
        """One pass over all running sequences. Returns each one's new tokens.

        A fault in one sequence's part ends that sequence. A fault of the device or of a pool is raised: `restart`
        then makes the engine usable again.
        """
        outputs = self._step()
        self._ended.clear()
        return outputs

    def _step(self) -> list[StepOutput]:
        outputs, self._instant = self._instant, []
        report = self.last_step = StepReport()
        begun = self._resume(report) or self._begin(report)
        if begun is None:
            return outputs
        chunks, logits = begun
        report.lap("base")
        distributions = self.session.steer([chunk.span for chunk in chunks], logits, lap=report.lap)
        for chunk in chunks:
            self._scheduler.commit(chunk)
        faults = dict(distributions.faults)
        placed = [each for each in with_places(chunks) if each.sequence.row not in faults]
        _, failed = isolate(placed, lambda some: score_prompts(some, distributions))
        faults |= {each.sequence.row: error for each, error in failed}
        report.lap("host")
        outputs += self._draw([each for each in placed if each.sequence.row not in faults], distributions)
        ended = [chunk.sequence for chunk in chunks if chunk.sequence.row in faults]
        outputs += [self._end_by_fault(sequence, faults[sequence.row]) for sequence in ended]
        report.lap("fuse_sample")
        return outputs

    def restart(self) -> list[str]:
        """Drop all requests, keys and values, after a fault of the device or of a pool. Models and adapters stay.

        Returns the ids of the requests that are dropped, and of those that ended in the step that failed: their last
        outputs are lost. Raises whatever the device raises if it is beyond use.
        """
        dropped = [*self._ended, *self._sequences]
        self.session.restart()
        # The old pool's memory must be free before the new one is made.
        del self._runner, self._allocator, self._scheduler, self._ahead, self._hide
        self._start()
        return dropped

    def stats(self) -> EngineStats:
        """Gauges now, and counters since start or `restart`."""
        return EngineStats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            kv_pages_used=self._allocator.used,
            kv_pages_total=self._allocator.num_pages,
            prefix_cache_queries=self._allocator.prefix_queries,
            prefix_cache_hits=self._allocator.prefix_hits,
            preemptions=self._scheduler.preemptions,
            history_reencoded_tokens=self.session.reencoded_tokens,
        )

    def check_integrity(self) -> None:
        """Raise RuntimeError when a pool has lost or doubled a page, or holds one that no sequence owns."""
        self._allocator.check_integrity()
        self.session.check_integrity()
        if not self._sequences and self._allocator.used:
            raise RuntimeError(f"{self._allocator.used} pages are in use without a sequence")

    def _begin(self, report: StepReport) -> tuple[list[Chunk], Tensor] | None:
        """Schedule a step and run the base over its chunks; None where there is nothing to do."""
        chunks = self._scheduler.schedule()
        if not chunks:
            return None
        report.started = tuple(chunk.sequence.start() for chunk in chunks if not chunk.sequence.started)
        inputs = [chunk.row_input for chunk in chunks]
        report.lap("host")
        self._execution.side.allow_overlap()
        return chunks, self._runner.forward(inputs)

    def _resume(self, report: StepReport) -> tuple[list[Chunk], Tensor] | None:
        """The pass that the last step has queued, for the sequences that have not ended since."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        begun = [Chunk.of(sequence, 1) for sequence in ahead.sequences], ahead.logits
        report.lap("host")
        return begun

    def _run_ahead(self, sequences: Sequence[SequenceState], tokens: Tensor) -> None:
        """Queue the base's pass over the tokens just drawn, int64 `[sequences]`, before the host has read them.

        Only where the next step has nothing else to do: no sequence can be admitted, and no prompt is being read.
        """
        if self._scheduler.may_admit or len(sequences) < len(self._scheduler.running):
            return
        sequences, tokens = going_on(sequences, tokens, self._ends)
        if not sequences or not self._scheduler.reserve_next(sequences):
            return
        # The tokens are on the device. The 0 only fills their place in the plan.
        inputs = [RowInput((0,), len(sequence.tokens), sequence.pages, 0) for sequence in sequences]
        self._execution.side.allow_overlap()
        self._ahead = AheadPass(sequences, self._runner.forward(inputs, tokens), self._runner.cache)

    def _draw(self, placed: Sequence[Placed], distributions: Distributions) -> list[StepOutput]:
        """Draw the next token of every sequence whose end the step has reached."""
        # A random number is drawn once, however often the draw is tried.
        ends = [
            (each.sequence, each.places[-1], each.sequence.generator.random())
            for each in placed
            if each.chunk.is_last
        ]
        if not ends:
            return []

        def draw_some(
            some: Sequence[tuple[SequenceState, int, float]],
        ) -> list[tuple[OutputBuilder, int, SequenceState]]:
            sequences, rows, uniforms = zip(*some, strict=True)
            tokens, drawn = draw(
                distributions.select(rows), sequences, uniforms, self._ends, self.config.kl_every
            )
            if self._execution.runs_ahead and len(some) == len(ends):
                self._run_ahead(sequences, tokens)
            builder = drawn.read()
            return [(builder, row, sequence) for row, sequence in enumerate(sequences)]

        # Drawing changes no sequence, so it can be repeated. Committing cannot.
        drawn, failed = isolate(ends, draw_some)
        outputs = [self._commit(*each) for each in chain.from_iterable(drawn)]
        return outputs + [self._end_by_fault(sequence, error) for (sequence, _, _), error in failed]

    def _commit(self, builder: OutputBuilder, row: int, sequence: SequenceState) -> StepOutput:
        """Append one drawn token, or end the sequence without it, and build the output."""
        try:
            return self._append(builder, row, sequence)
        except Exception as error:
            if is_shared(error):
                raise
            return self._end_by_fault(sequence, error)

    def _append(self, builder: OutputBuilder, row: int, sequence: SequenceState) -> StepOutput:
        if not builder.finite[row]:
            return self._fail(sequence, "the model's scores are not finite numbers", "scores")
        request_id, grammar = sequence.request.request_id, sequence.constraint
        prompt_logprobs = tuple(sequence.prompt_logprobs) if sequence.scores_prompt else None
        if sequence.request.sampling.max_tokens == 0:
            self._finish(sequence)
            return StepOutput(request_id, prompt_logprobs=prompt_logprobs, finish_reason="length")
        if grammar is not None and grammar.error is not None:
            return self._fail(sequence, grammar.error, "constraint")
        sequence.tokens.append(builder.tokens[row])
        complete = grammar is not None and grammar.follow(sequence.generated)
        output = replace(
            builder.output(row, request_id, prompt_logprobs),
            finish_reason="stop" if complete else self._ends.reason(sequence),
            cached_tokens=sequence.cached_tokens,
        )
        if output.finish_reason is not None:
            self._finish(sequence)
        return output

    def _end_by_fault(self, sequence: SequenceState, error: Exception) -> StepOutput:
        """End a sequence whose own part has raised."""
        logger.error("request %s has ended by its own fault", sequence.request.request_id, exc_info=error)
        return self._fail(sequence, f"{type(error).__name__}: {error}", "fault")

    def _fail(self, sequence: SequenceState, message: str, cause: Cause) -> StepOutput:
        """End a sequence with an error."""
        self._hide(sequence)
        self._finish(sequence)
        return StepOutput(sequence.request.request_id, finish_reason="error", error=message, cause=cause)

    def _finish(self, sequence: SequenceState) -> None:
        """Forget a sequence and free everything that it holds."""
        del self._sequences[sequence.request.request_id]
        self._ended.append(sequence.request.request_id)
        if self._ahead is not None:
            self._ahead = self._ahead.without(sequence)
        self.session.close(sequence.row)
        self._scheduler.finish(sequence)

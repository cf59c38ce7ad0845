"""The generate loop of one base: schedule, run the base, steer, sample, commit.

One thread calls `add_request`, `abort` and `step`. The steering session holds the adapters: any thread may attach and
detach them there. The engine does not know HTTP or stop strings, and knows text only through the adapters' histories.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from steering.device.execution import Execution, execution_on
from steering.device.host_memory import keep_freed_memory, release_freed_memory
from steering.device.transfer import on_device
from steering.engine.admission import check_request
from steering.engine.ahead import AheadPass
from steering.engine.config import MOST_SCORES, EngineConfig, make_pool
from steering.engine.constraint import constrain
from steering.engine.drawn import OutputBuilder, drawn_of
from steering.engine.ending import EndRules
from steering.engine.outputs import EngineStats, StepOutput
from steering.engine.request import Request
from steering.engine.sampler import SamplingRow, sample
from steering.engine.scheduler import Chunk, Scheduler
from steering.engine.sequence import SequenceState
from steering.engine.step_report import StepReport
from steering.errors import InvalidRequestError
from steering.model.loaded_model import LoadedModel
from steering.model.row_input import RowInput
from steering.session import Distributions, SteeringSession
from steering.session.logprobs import token_logprobs
from steering.specs import ResolvedSteering

__all__ = ["Engine", "EngineConfig"]

_Begun = tuple[list[Chunk], Tensor]


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
        self._allocator, self._runner = make_pool(base, self.config, self._execution, self.max_model_len)
        self.max_model_len = min(self.max_model_len, self._allocator.num_pages * self.config.page_size)
        self._ends = EndRules(base.eos_token_ids, self.max_model_len)
        self._scheduler = Scheduler(
            self._allocator,
            self.config.max_num_seqs,
            max(self.config.max_step_tokens, self.config.max_num_seqs),
            max(1, MOST_SCORES // base.vocab_size),
        )
        self.session = SteeringSession(
            base.vocabulary,
            base.device,
            page_size=self.config.page_size,
            prefix_caching=self.config.prefix_caching,
            execution=self._execution,
        )
        self._sequences: dict[str, SequenceState] = {}
        self._instant: list[StepOutput] = []
        self._ahead: AheadPass | None = None
        self.last_step = StepReport()

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
        sequence = SequenceState(request, row, tokens)
        self._sequences[request.request_id] = sequence
        self._scheduler.add(sequence)
        return row.steering

    def abort(self, request_id: str) -> bool:
        """End a request and free everything that it holds; False when there is no such request (any more)."""
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return False
        self._finish(sequence)
        self._instant.append(StepOutput(request_id, finish_reason="abort"))
        return True

    @property
    def has_work(self) -> bool:
        """True while `step` has something to do."""
        return bool(self._instant) or self._scheduler.has_work

    @torch.inference_mode()
    def step(self) -> list[StepOutput]:
        """One pass over all running sequences. Returns each one's new tokens."""
        outputs, self._instant = self._instant, []
        report = self.last_step = StepReport()
        begun = self._resume(report) or self._begin(report)
        if begun is None:
            return outputs
        chunks, logits = begun
        report.lap("base")
        distributions = self.session.steer([chunk.span for chunk in chunks], logits, lap=report.lap)
        self._score_prompts(chunks, distributions)
        for chunk in chunks:
            self._scheduler.commit(chunk)
        report.lap("host")
        outputs.extend(self._draw(chunks, distributions, report))
        report.lap("host")
        return outputs

    def stats(self) -> EngineStats:
        """Gauges now and counters since start."""
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

    # The base's pass

    def _begin(self, report: StepReport) -> _Begun | None:
        """Schedule a step and run the base over its chunks; None where there is nothing to do."""
        chunks = self._scheduler.schedule()
        if not chunks:
            return None
        report.started = tuple(chunk.sequence.start() for chunk in chunks if not chunk.sequence.started)
        inputs: list[RowInput] = []
        for chunk in chunks:
            sequence = chunk.sequence
            tokens = sequence.tokens[chunk.start : chunk.start + chunk.count]
            inputs.append(RowInput(tokens, chunk.start, sequence.pages, chunk.count - chunk.wanted))
        report.lap("host")
        self._execution.side.allow_overlap()
        return chunks, self._runner.forward(inputs)

    def _resume(self, report: StepReport) -> _Begun | None:
        """The pass that the last step has queued, for the sequences that have not ended since."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        chunks = [Chunk.of(sequence, 1) for sequence in ahead.sequences]
        logits = ahead.logits
        report.lap("host")
        return chunks, logits

    def _run_ahead(self, sequences: Sequence[SequenceState], tokens: Tensor) -> None:
        """Queue the base's pass over the tokens just drawn, int64 `[sequences]`, before the host has read them.

        Only where the next step has nothing else to do: no sequence can be admitted, and no prompt is being read.
        """
        scheduler = self._scheduler
        if scheduler.may_admit or len(sequences) < len(scheduler.running):
            return
        going = [row for row, sequence in enumerate(sequences) if self._ends.has_room(sequence)]
        if not going or not scheduler.reserve_next([sequences[row] for row in going]):
            return
        if len(going) < len(sequences):
            tokens = tokens.index_select(0, on_device(going, tokens.device))
            sequences = [sequences[row] for row in going]
        # The tokens are on the device. The 0 only fills their place in the plan.
        inputs = [RowInput((0,), len(sequence.tokens), sequence.pages, 0) for sequence in sequences]
        self._execution.side.allow_overlap()
        logits = self._runner.forward(inputs, tokens)
        self._ahead = AheadPass(sequences, logits, self._runner.cache)

    # From the steered distributions to outputs

    def _score_prompts(self, chunks: Sequence[Chunk], distributions: Distributions) -> None:
        """Collect the log probabilities of prompt tokens for the requests that asked for them."""
        asked: list[tuple[int, int, int]] = []
        owners: list[SequenceState] = []
        place = 0
        for chunk in chunks:
            sequence = chunk.sequence
            if sequence.scores_prompt:
                if not sequence.prompt_logprobs:
                    sequence.prompt_logprobs.append(None)
                count = sequence.request.sampling.prompt_logprobs or 0
                for row, length in enumerate(chunk.span.lengths, place):
                    if length < sequence.prompt_length:
                        asked.append((row, sequence.tokens[length], count))
                        owners.append(sequence)
            place += chunk.wanted
        for sequence, entry in zip(owners, token_logprobs(distributions, asked), strict=True):
            sequence.prompt_logprobs.append(entry)

    def _draw(
        self, chunks: Sequence[Chunk], distributions: Distributions, report: StepReport
    ) -> list[StepOutput]:
        """Draw the next token of every sequence whose end the step has reached."""
        sequences: list[SequenceState] = []
        places: list[int] = []
        place = 0
        for chunk in chunks:
            place += chunk.wanted
            if chunk.is_last:
                sequences.append(chunk.sequence)
                places.append(place - 1)
        if not sequences:
            return []
        ends = distributions.select(places)
        forbidden = [self._ends.forbidden(sequence) for sequence in sequences]
        rows = [
            SamplingRow(
                params=sequence.request.sampling,
                prompt=sequence.request.prompt_ids,
                generated=sequence.generated if sequence.request.sampling.penalises else (),
                uniform=sequence.generator.random(),
                # A grammar's mask excludes them itself, unless only they are possible.
                forbidden=() if sequence.constraint else banned,
            )
            for sequence, banned in zip(sequences, forbidden, strict=True)
        ]
        report.lap("host")
        scores = constrain(ends.steered, [sequence.constraint for sequence in sequences], forbidden)
        tokens = sample(scores, rows)
        drawn = drawn_of(ends, tokens, sequences, self.config.kl_every)
        if self._execution.runs_ahead:
            self._run_ahead(sequences, tokens)
        builder = drawn.read()
        report.lap("fuse_sample")
        return [self._commit(builder, row, sequence) for row, sequence in enumerate(sequences)]

    def _commit(self, builder: OutputBuilder, row: int, sequence: SequenceState) -> StepOutput:
        """Append one drawn token, or end the sequence without it, and build the output."""
        if not builder.finite[row]:
            return self._fail_scores(sequence)
        request_id, grammar = sequence.request.request_id, sequence.constraint
        prompt_logprobs = tuple(sequence.prompt_logprobs) if sequence.scores_prompt else None
        if sequence.request.sampling.max_tokens == 0:
            self._finish(sequence)
            return StepOutput(request_id, prompt_logprobs=prompt_logprobs, finish_reason="length")
        if grammar is not None and grammar.error is not None:
            self._finish(sequence)
            return StepOutput(request_id, finish_reason="error", error=grammar.error, cause="constraint")
        sequence.tokens.append(builder.tokens[row])
        complete = grammar is not None and grammar.follow(sequence.generated)
        output = replace(
            builder.output(row, request_id, prompt_logprobs),
            finish_reason="stop" if complete else self._ends.reason(sequence),
        )
        if output.finish_reason is not None:
            self._finish(sequence)
        return output

    def _fail_scores(self, sequence: SequenceState) -> StepOutput:
        """End a sequence whose scores are not finite, and hide its keys and values from others."""
        self._runner.cache.invalidate(sequence.pages)
        sequence.row.invalidate()
        self._execution.side.forbid_overlap()
        self._finish(sequence)
        return StepOutput(
            sequence.request.request_id,
            finish_reason="error",
            error="the model's scores are not finite numbers",
            cause="scores",
        )

    def _finish(self, sequence: SequenceState) -> None:
        """Forget a sequence and free everything that it holds."""
        del self._sequences[sequence.request.request_id]
        if self._ahead is not None:
            self._ahead.drop(sequence)
            if not self._ahead.sequences:
                self._ahead = None
        self.session.close(sequence.row)
        self._scheduler.finish(sequence)

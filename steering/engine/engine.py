"""The generate loop of one base: schedule, run the base, run the steering models, fuse, sample, commit.

One thread calls `add_request`, `abort` and `step`; adapters may be attached, detached and looked up from any other.
The engine does not know text (but for what histories need), HTTP, or stop strings.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mapping_cache import VocabularyMap, load_or_build
from steering.adapters import Adapter, AdapterRegistry
from steering.crossing.crossing import Crossings
from steering.device.execution import Execution, execution_on
from steering.device.host_memory import keep_freed_memory, release_freed_memory
from steering.device.transfer import on_device
from steering.engine.admission import check_request
from steering.engine.ahead import AheadPass
from steering.engine.config import MOST_SCORES, EngineConfig, make_pool
from steering.engine.constraint import constrain
from steering.engine.outputs import Drawn, OutputBuilder, token_logprobs
from steering.engine.sampler import SamplingRow, sample
from steering.engine.scheduler import Chunk, Scheduler
from steering.engine.sequence import Sequence
from steering.engine.step_report import StepReport
from steering.model.loaded_model import LoadedModel
from steering.model.row_input import RowInput
from steering.session.distribution import Distributions, Position, StepModels
from steering.session.resolution import resolve
from steering.steerers.steerer import Steerer, SteeringRow
from steering.types import (
    EngineStats,
    InvalidRequestError,
    Request,
    ResolvedSteering,
    StepOutput,
)

__all__ = ["Engine", "EngineConfig"]

# Less than this moves no score that float32 tells apart, and what is divided by it overflows.
_LEAST_ALPHA = 1e-12


_Begun = tuple[list[Chunk], list[Position], Tensor]


class Engine:
    """Continuous batching over one base, every sequence steered by its own adapters or none.

    `execution`: how passes are put on the device, by default what pays on the base's.
    """

    def __init__(
        self, base: LoadedModel, config: EngineConfig | None = None, execution: Execution | None = None
    ) -> None:
        if base.device.type == "cpu":
            release_freed_memory()  # what loading the base left
            keep_freed_memory()
        self.base = base
        self.config = config or EngineConfig()
        self.max_model_len = min(base.max_model_len, self.config.max_model_len or base.max_model_len)
        self._execution = execution or execution_on(base.device, eager=self.config.enforce_eager)
        self._allocator, self._runner = make_pool(base, self.config, self._execution, self.max_model_len)
        self.max_model_len = min(self.max_model_len, self._allocator.num_pages * self.config.page_size)
        self._scheduler = Scheduler(
            self._allocator,
            self.config.max_num_seqs,
            max(self.config.max_step_tokens, self.config.max_num_seqs),
            max(1, MOST_SCORES // base.vocab_size),
        )
        self._sequences: dict[str, Sequence] = {}
        self._crossings = Crossings(base)
        self._registry: AdapterRegistry[Steerer] = AdapterRegistry()
        self._reencoded = 0
        self._instant: list[StepOutput] = []
        self._ahead: AheadPass | None = None
        self.last_step = StepReport()

    # Adapters

    def attach(self, adapter: Adapter, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Make an adapter usable by its name; an older version of that name serves the requests that have it.

        Takes what `prepare` takes. Any thread.
        """
        self.install(self.prepare(adapter, progress=progress))

    def prepare(
        self,
        adapter: Adapter,
        *,
        vocabulary_map: VocabularyMap | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Steerer:
        """An adapter made ready for this base, which no request can name yet.

        Without a `vocabulary_map` it is built or read from the cache, which may take seconds. Any thread.
        """
        if vocabulary_map is None:
            theirs = adapter.models[0].vocabulary
            vocabulary_map = load_or_build(self.base.vocabulary, theirs, progress=progress)
        return Steerer(
            adapter,
            self._crossings.to(adapter.models[0], vocabulary_map),
            self.config.page_size,
            self.config.prefix_caching,
            self._execution.capture_steering,
        )

    def install(self, steerer: Steerer) -> None:
        """Let requests name what `prepare` made; takes no time. Any thread."""
        self._registry.put(steerer)

    def detach(self, name: str, *, when_unread: Callable[[], None] | None = None) -> None:
        """Forget an adapter; requests that have it keep it to their end. Raises KeyError for an unknown name.

        `when_unread` is called when the last of them has ended, which may be at once. Called from another
        thread than the engine's, it may miss a request that is just being added.
        """
        self._registry.remove(name, when_unread)

    def adapters(self) -> dict[str, Adapter]:
        """The adapters that new requests can name."""
        return {name: steerer.adapter for name, steerer in self._registry.current().items()}

    def adapter_readers(self) -> list[tuple[Adapter, int]]:
        """Every version in memory and how many unfinished requests it steers: the current ones, then older ones."""
        return [(steerer.adapter, readers) for steerer, readers in self._registry.all()]

    def vocabulary_map(self, name: str) -> VocabularyMap:
        """The map that carries an adapter's shift to this base. Raises KeyError for an unknown name."""
        return self._registry.current()[name].crossing.vocabulary_map

    def resolve(self, request: Request) -> tuple[ResolvedSteering, ...]:
        """What would steer this request now. Raises InvalidRequestError for an unknown adapter."""
        return tuple(spec for _, spec in resolve(request.steering, self._registry.current()))

    # Requests

    def add_request(self, request: Request) -> None:
        """Queue a request, its adapters' versions pinned. Raises InvalidRequestError naming the field at fault."""
        if request.request_id in self._sequences:
            raise InvalidRequestError(f"request id {request.request_id!r} is in use", "request_id")
        check_request(request, self.base.vocab_size, self.max_model_len)
        resolved = resolve(request.steering, self._registry.current())
        if request.sampling.seed is None:
            request = replace(request, sampling=replace(request.sampling, seed=random.getrandbits(63)))
        # alpha 0 is the base exactly, so its models need not run.
        rows = [SteeringRow(steerer, spec) for steerer, spec in resolved if abs(spec.alpha) > _LEAST_ALPHA]
        sequence = Sequence(request, tuple(spec for _, spec in resolved), rows)
        self._registry.pin(row.steerer for row in rows)
        self._sequences[request.request_id] = sequence
        self._scheduler.add(sequence)

    def abort(self, request_id: str) -> bool:
        """End a request and free all that it holds; False when there is no such request (any more)."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is None:
            return False
        self._release(sequence)
        self._instant.append(StepOutput(request_id, finish_reason="abort"))
        return True

    @property
    def has_work(self) -> bool:
        """True while `step` has something to do."""
        return bool(self._instant) or self._scheduler.has_work

    @torch.inference_mode()
    def step(self) -> list[StepOutput]:
        """One pass over all running sequences; returns what each of them gained."""
        outputs, self._instant = self._instant, []
        report = self.last_step = StepReport()
        begun = self._resume(report) or self._begin(report)
        if begun is None:
            return outputs
        chunks, positions, base_logits = begun
        report.lap("base")
        distributions = StepModels(positions, self._execution.side).fuse(base_logits, report)
        self._score_prompts(positions, distributions)
        for chunk in chunks:
            self._scheduler.commit(chunk)
        report.lap("host")
        outputs.extend(self._next_tokens(positions, distributions, report))
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
            history_reencoded_tokens=self._reencoded,
        )

    def check_integrity(self) -> None:
        """Raises RuntimeError when a pool has lost or doubled a page, or holds one that nobody owns."""
        self._allocator.check_integrity()
        for steerer, _ in self._registry.all():
            for number, runner in enumerate(steerer.runners):
                runner.cache.allocator.check_integrity()
                held = {
                    page
                    for sequence in self._sequences.values()
                    for row in sequence.rows
                    if row.steerer is steerer
                    for page in row.caches[number].pages
                }
                used = runner.cache.allocator.used
                if len(held) != used:
                    raise RuntimeError(f"steering pages: {used} used, {len(held)} held")
        if not self._sequences and self._allocator.used:
            raise RuntimeError(f"{self._allocator.used} pages are in use by nobody")

    # One step's parts

    def _begin(self, report: StepReport) -> _Begun | None:
        """Run the base over the chunks of a new step; None where there is nothing to do."""
        chunks = self._scheduler.schedule()
        if not chunks:
            return None
        report.started = tuple(chunk.sequence.start() for chunk in chunks if not chunk.sequence.started)
        inputs: list[RowInput] = []
        positions: list[Position] = []
        for chunk in chunks:
            sequence, end = chunk.sequence, chunk.start + chunk.count
            wanted = chunk.count if sequence.scores_prompt else int(chunk.is_last)
            tokens = sequence.tokens[chunk.start : end]
            inputs.append(RowInput(tokens, chunk.start, sequence.pages, chunk.count - wanted))
            positions.extend(Position(sequence, length) for length in range(end - wanted + 1, end + 1))
        report.lap("host")
        self._execution.side.allow_overlap()
        return chunks, positions, self._runner.forward(inputs)

    def _resume(self, report: StepReport) -> _Begun | None:
        """What the last step has queued of this one: the rows whose sequences have not ended meanwhile."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        chunks = [Chunk(sequence, sequence.computed, 1) for sequence in ahead.sequences]
        positions = [Position(sequence, len(sequence.tokens)) for sequence in ahead.sequences]
        logits = ahead.logits
        report.lap("host")
        return chunks, positions, logits

    def _run_ahead(self, sequences: list[Sequence], tokens: Tensor) -> None:
        """Queue the base's pass over tokens int64 `[sequences]` that were just drawn, before the host has read them.

        Only where the next step has nothing else to do: nobody can be admitted, and no prompt is being read.
        """
        scheduler = self._scheduler
        if scheduler.may_admit or len(sequences) < len(scheduler.running):
            return
        going = [row for row, sequence in enumerate(sequences) if self._has_room(sequence)]
        if not going or not scheduler.reserve_next([sequences[row] for row in going]):
            return
        if len(going) < len(sequences):
            tokens = tokens.index_select(0, on_device(going, tokens.device))
            sequences = [sequences[row] for row in going]
        # The token is on the device; here it only takes a place.
        inputs = [RowInput((0,), len(sequence.tokens), sequence.pages, 0) for sequence in sequences]
        self._execution.side.allow_overlap()
        logits = self._runner.forward(inputs, tokens)
        self._ahead = AheadPass(sequences, logits, self._runner.cache)

    def _score_prompts(self, positions: list[Position], distributions: Distributions) -> None:
        """Collect the log probabilities of prompt tokens where a request asked for them."""
        asked: list[tuple[int, int, int]] = []
        for row, position in enumerate(positions):
            sequence = position.sequence
            if not sequence.scores_prompt:
                continue
            if not sequence.prompt_logprobs:
                sequence.prompt_logprobs.append(None)
            if position.length < sequence.prompt_length:
                count = sequence.request.sampling.prompt_logprobs or 0
                asked.append((row, sequence.tokens[position.length], count))
        for (row, _, _), entry in zip(asked, token_logprobs(distributions, asked), strict=True):
            positions[row].sequence.prompt_logprobs.append(entry)

    def _next_tokens(
        self, positions: list[Position], distributions: Distributions, report: StepReport
    ) -> list[StepOutput]:
        """Sample at every sequence's end and say what came of it."""
        last = [i for i, p in enumerate(positions) if p.length == len(p.sequence.tokens)]
        if not last:
            return []
        ends = distributions.select(last)
        sequences = [positions[i].sequence for i in last]
        forbidden = [self._forbidden(s) for s in sequences]
        rows = [
            SamplingRow(
                params=s.request.sampling,
                prompt=s.request.prompt_ids,
                generated=s.generated if s.request.sampling.penalises else (),
                uniform=s.generator.random(),
                # A grammar's mask leaves them out by itself, but for where nothing else is possible.
                forbidden=() if s.constraint else banned,
            )
            for s, banned in zip(sequences, forbidden, strict=True)
        ]
        report.lap("host")
        scores = constrain(ends.steered, [s.constraint for s in sequences], forbidden)
        tokens = sample(scores, rows)
        steered = [row for row, s in enumerate(sequences) if s.rows]
        every = self.config.kl_every
        drawn = Drawn(
            ends,
            tokens,
            steered=steered,
            measured=[row for row in steered if sequences[row].generated_count % every == 0],
            logprobs={
                row: s.request.sampling.logprobs
                for row, s in enumerate(sequences)
                if s.request.sampling.logprobs is not None
            },
        )
        if self._execution.runs_ahead:
            self._run_ahead(sequences, tokens)
        builder = drawn.read()
        report.lap("fuse_sample")
        return [self._commit(builder, row, sequence) for row, sequence in enumerate(sequences)]

    def _forbidden(self, sequence: Sequence) -> tuple[int, ...]:
        if sequence.generated_count >= sequence.request.sampling.min_tokens:
            return ()
        return tuple(sorted(self._end_tokens(sequence)))

    def _end_tokens(self, sequence: Sequence) -> frozenset[int]:
        sampling = sequence.request.sampling
        if sampling.ignore_eos:
            return sampling.stop_token_ids
        return self.base.eos_token_ids | sampling.stop_token_ids

    def _has_room(self, sequence: Sequence) -> bool:
        """False where the next token is the last one, whatever it is."""
        after = sequence.generated_count + 1
        return after < sequence.request.sampling.max_tokens and len(sequence.tokens) + 1 < self.max_model_len

    def _commit(self, builder: OutputBuilder, row: int, sequence: Sequence) -> StepOutput:
        """Append a token (or end without one) and build the output."""
        sampling = sequence.request.sampling
        prompt_logprobs = tuple(sequence.prompt_logprobs) if sequence.scores_prompt else None
        token = builder.tokens[row]
        if not builder.finite[row]:
            self._runner.cache.invalidate(sequence.pages)
            for steering in sequence.rows:
                steering.spoil()
            self._execution.side.forbid_overlap()
            self._finish(sequence)
            return StepOutput(
                sequence.request.request_id,
                finish_reason="error",
                error="the model's scores are not finite numbers",
            )
        if sampling.max_tokens == 0:
            self._finish(sequence)
            return StepOutput(
                sequence.request.request_id, prompt_logprobs=prompt_logprobs, finish_reason="length"
            )
        grammar = sequence.constraint
        if grammar is not None and grammar.error is not None:
            self._finish(sequence)
            return StepOutput(
                sequence.request.request_id,
                finish_reason="error",
                error=f"response_format: {grammar.error}",
                param="response_format",
            )
        sequence.tokens.append(token)
        output = builder.output(row, sequence.request.request_id, prompt_logprobs)
        complete = grammar is not None and grammar.follow(sequence.generated)
        if complete or token in self._end_tokens(sequence):
            output = replace(output, finish_reason="stop")
        elif sequence.generated_count >= sampling.max_tokens or len(sequence.tokens) >= self.max_model_len:
            output = replace(output, finish_reason="length")
        if output.finish_reason is not None:
            self._finish(sequence)
        return output

    def _finish(self, sequence: Sequence) -> None:
        del self._sequences[sequence.request.request_id]
        self._release(sequence)

    def _release(self, sequence: Sequence) -> None:
        if self._ahead is not None:
            self._ahead.drop(sequence)
            if not self._ahead.sequences:
                self._ahead = None
        self._reencoded += sum(row.history.reencoded for row in sequence.rows)
        self._scheduler.finish(sequence)
        self._registry.unpin(row.steerer for row in sequence.rows)

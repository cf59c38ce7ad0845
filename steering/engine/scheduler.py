"""Decides which sequences run in the next step: admission, packing, preemption. Pure policy, no tensors.

Running sequences that need only their next token go first, so that a long prompt never starves a decode. The rest of
the step's token budget goes to prompts, in chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from steering.engine.sequence import SequenceState
from steering.model.pages import PageAllocator
from steering.model.row_input import RowInput
from steering.session.row import Span


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `start` to `start + count` of one sequence, to be computed in this step.

    Logits are wanted after the last `wanted` of them: every one where the prompt is scored, else only at the
    sequence's end.
    """

    sequence: SequenceState
    start: int
    count: int
    wanted: int

    @classmethod
    def of(cls, sequence: SequenceState, count: int) -> Chunk:
        """The next `count` tokens of a sequence."""
        start = sequence.computed
        is_last = start + count == len(sequence.tokens)
        return cls(sequence, start, count, count if sequence.scores_prompt else int(is_last))

    @property
    def is_last(self) -> bool:
        """True when the chunk reaches the sequence's end, so that its logits give the next token."""
        return self.start + self.count == len(self.sequence.tokens)

    @property
    def row_input(self) -> RowInput:
        """Its tokens for the base, with logits of the wanted ones."""
        tokens = self.sequence.tokens[self.start : self.start + self.count]
        return RowInput(tokens, self.start, self.sequence.pages, self.count - self.wanted)

    @property
    def span(self) -> Span:
        """The wanted positions."""
        end = self.start + self.count
        return Span(self.sequence.row, range(end - self.wanted + 1, end + 1))


@dataclass(slots=True)
class _Budget:
    """The rest of a step's budget: tokens to compute, and prompt positions to score."""

    tokens: int
    scored: int

    def share(self, sequence: SequenceState) -> int:
        """The number of a sequence's tokens that fit."""
        left = min(len(sequence.tokens) - sequence.computed, max(self.tokens, 0))
        return min(left, self.scored) if sequence.scores_prompt else left

    def take(self, sequence: SequenceState, count: int) -> None:
        """Use up a sequence's share."""
        self.tokens -= count
        if sequence.scores_prompt:
            self.scored -= count


class Scheduler:
    """Keeps the waiting queue and the running list of one engine.

    `hide` is called with a sequence that is preempted before its keys and values are known to be finite.
    """

    def __init__(
        self,
        allocator: PageAllocator,
        max_num_seqs: int,
        max_step_tokens: int,
        max_scored: int | None = None,
        hide: Callable[[SequenceState], None] | None = None,
    ) -> None:
        self.allocator = allocator
        self.waiting: deque[SequenceState] = deque()
        self.running: list[SequenceState] = []
        self.preemptions = 0
        self._hide = hide
        self._max_num_seqs = max_num_seqs
        self._max_step_tokens = max_step_tokens
        self._max_scored = max_step_tokens if max_scored is None else max_scored

    @property
    def has_work(self) -> bool:
        """True while any sequence waits or runs."""
        return bool(self.waiting or self.running)

    def add(self, sequence: SequenceState) -> None:
        """Queue a new sequence."""
        self.waiting.append(sequence)

    def schedule(self) -> list[Chunk]:
        """The chunks of the next step, their pages allocated."""
        budget = _Budget(self._max_step_tokens, self._max_scored)
        chunks: list[Chunk] = []
        # Oldest first: preemption takes the youngest sequence, which comes last and has no chunk yet.
        decoding = [s for s in self.running if len(s.tokens) - s.computed == 1]
        prefilling = [s for s in self.running if len(s.tokens) - s.computed > 1]
        for sequence in [*decoding, *prefilling]:
            if sequence not in self.running:
                continue
            count = budget.share(sequence)
            if count and self._make_room(sequence, count, chunks):
                chunks.append(Chunk.of(sequence, count))
                budget.take(sequence, count)
        while self.waiting and budget.tokens > 0 and len(self.running) < self._max_num_seqs:
            following = self._next_waiting(budget)
            if following is None or not self._admit(following):
                break
            count = budget.share(following)
            self._extend(following, count)
            chunks.append(Chunk.of(following, count))
            budget.take(following, count)
        return chunks

    @property
    def may_admit(self) -> bool:
        """True where a sequence waits and another one may run."""
        return bool(self.waiting) and len(self.running) < self._max_num_seqs

    def reserve_next(self, sequences: Collection[SequenceState]) -> bool:
        """Allocate pages for one more token of each; False where that would need a preemption."""
        if sum(self._missing(sequence, 1) for sequence in sequences) > self.allocator.available:
            return False
        for sequence in sequences:
            self._extend(sequence, 1)
        return True

    def commit(self, chunk: Chunk) -> None:
        """Record that a chunk's keys and values are in the pool."""
        sequence = chunk.sequence
        sequence.computed = chunk.start + chunk.count
        if sequence.computed // self.allocator.page_size > chunk.start // self.allocator.page_size:
            self.allocator.cache_prefix(sequence.tokens[: sequence.computed], sequence.pages, chunk.start)

    def finish(self, sequence: SequenceState) -> None:
        """Forget a running or waiting sequence and free its pages."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._release(sequence)

    def _next_waiting(self, budget: _Budget) -> SequenceState | None:
        """The first waiting sequence that fits the budget and whose prompt is not being computed right now.

        Several answers to one prompt wait the few steps until it is computed, and then share its pages. A prompt to
        score waits for other prompts being scored, and lets sequences that only generate pass.
        """
        computing = {
            id(s.request.prompt_ids)
            for s in self.running
            if not s.scores_prompt and s.computed < self._shareable(s)
        }
        return next(
            (s for s in self.waiting if budget.share(s) and id(s.request.prompt_ids) not in computing), None
        )

    def _shareable(self, sequence: SequenceState) -> int:
        """The number of a prompt's tokens on pages that others can share. The last token is always computed."""
        if not self.allocator.prefix_caching:
            return 0
        return (sequence.prompt_length - 1) // self.allocator.page_size * self.allocator.page_size

    def _admit(self, sequence: SequenceState) -> bool:
        """Move a waiting sequence to the running list if its whole text fits beside the running ones."""
        # A scoring request needs the logits of every prompt position, so no position can be skipped.
        shared = [] if sequence.scores_prompt else self.allocator.find_prefix(sequence.tokens)
        needed = self.allocator.pages_for(len(sequence.tokens)) - len(shared)
        if needed > self.allocator.available:
            self.allocator.release(shared)
            return False
        self.waiting.remove(sequence)
        sequence.pages = shared
        sequence.computed = len(shared) * self.allocator.page_size
        if not sequence.started:
            sequence.cached_tokens = sequence.computed
        self.running.append(sequence)
        return True

    def _make_room(self, sequence: SequenceState, count: int, chunks: list[Chunk]) -> bool:
        """Give a running sequence the pages for its next tokens; False when it was preempted itself."""
        needed = self._missing(sequence, count)
        busy = {id(chunk.sequence) for chunk in chunks}
        while needed > self.allocator.available:
            victim = next(s for s in reversed(self.running) if id(s) not in busy)
            self._preempt(victim)
            if victim is sequence:
                return False
        self._extend(sequence, count)
        return True

    def _extend(self, sequence: SequenceState, count: int) -> None:
        sequence.pages.extend(self.allocator.allocate(self._missing(sequence, count)))

    def _missing(self, sequence: SequenceState, count: int) -> int:
        """The number of pages that a sequence lacks for `count` tokens beyond those computed."""
        return max(0, self.allocator.pages_for(sequence.computed + count) - len(sequence.pages))

    def _preempt(self, sequence: SequenceState) -> None:
        self.preemptions += 1
        self.running.remove(sequence)
        if self._hide is not None and not sequence.is_checked:
            self._hide(sequence)
        self._release(sequence)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: SequenceState) -> None:
        self.allocator.release(sequence.pages)
        sequence.pages = []
        sequence.forget_computed()

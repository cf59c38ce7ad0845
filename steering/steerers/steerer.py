"""An adapter made ready for one base: its runners, its map, and each sequence's place in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from steering.adapters import Adapter
from steering.crossing.crossing import Crossing
from steering.crossing.history import History
from steering.crossing.spelling import Spelling
from steering.device.capture import Capture
from steering.model.kv_cache import KVCache
from steering.model.pages import PageAllocator
from steering.model.runner import Runner
from steering.types import BridgeName, ResolvedSteering

# A tiny model's pool starts at this many pages and doubles when it must.
_INITIAL_PAGES = 64
# Positions of the steering model's context kept free for the continuations that rescoring tries.
CONTEXT_RESERVE = 16


@dataclass(slots=True)
class RowKV:
    """One sequence's keys and values in one steering model: its pages and how many positions are computed.

    `remembered`: positions up to which the pool's prefix cache knows the full pages.
    """

    pages: list[int] = field(default_factory=list)
    computed: int = 0
    remembered: int = 0


class SteeringRow:
    """One sequence's history in one adapter.

    The steering model's context may be shorter than the base's. A longer history is cut in the middle: what the
    encoder puts first stays, then the most recent tokens, dropped half a context at a time so that keys and values
    are rarely recomputed.
    """

    def __init__(self, steerer: Steerer, spec: ResolvedSteering) -> None:
        self.steerer = steerer
        self.spec = spec
        self.history: History = steerer.crossing.new_history()
        self.caches = [RowKV() for _ in steerer.runners]
        self.pushed = 0
        self.dropped = 0

    @property
    def length(self) -> int:
        """Positions of the history that the steering model sees."""
        return len(self.history.tokens) - self.dropped

    @property
    def bridge(self) -> BridgeName:
        """How the shift reaches the base; over one vocabulary both bridges are the same gather."""
        return "map" if self.steerer.shares_vocabulary else self.spec.bridge

    def advance(self, tokens: Sequence[int], length: int) -> None:
        """Take those of the sequence's first `length` base tokens that are new since the last call."""
        for index in range(self.pushed, length):
            changed = self.history.push(tokens[index]) - self.dropped
            for cache in self.caches:
                cache.computed = min(cache.computed, max(changed, 0))
        self.pushed = length
        self._slide()

    def takes_many(self, tokens: Sequence[int], length: int) -> bool:
        """True when the positions up to `length` of these base tokens can be scored together: nothing is cut yet."""
        if self.steerer.shares_vocabulary:
            return length <= self.steerer.context
        ahead = self.history.copy()
        for index in range(self.pushed, length):
            ahead.push(tokens[index])
        return len(ahead.tokens) <= self.steerer.context

    def at_each(self, tokens: Sequence[int], lengths: Sequence[int]) -> list[SteeringRow]:
        """Rows that stand where this one does at each of these base lengths, ascending; it moves to the last.

        They have no keys and values yet: see `steering.steerers.views`.
        """
        rows = []
        for length in lengths:
            self.advance(tokens, length)
            row = SteeringRow(self.steerer, self.spec)
            row.history, row.pushed = self.history.copy(), length
            rows.append(row)
        return rows

    @property
    def settled(self) -> int:
        """Positions from the start whose tokens stay as they are; none while the history is cut."""
        return 0 if self.dropped else self.history.settled

    def seen(self, start: int, stop: int | None = None) -> list[int]:
        """The history's tokens at positions `start` to `stop` as the steering model sees them."""
        kept = self.steerer.prefix_length if self.dropped else 0
        stop = self.length if stop is None else stop
        head = self.history.tokens[start : min(kept, stop)]
        return head + self.history.tokens[max(start, kept) + self.dropped : stop + self.dropped]

    def position_of(self, index: int) -> int | None:
        """The position at which history token `index` is seen; None for what a cut history dropped, or put first."""
        if not self.dropped:
            return index
        position = index - self.dropped
        return position if position >= self.steerer.prefix_length else None

    def reset(self) -> None:
        """Give the pages back and start over; the sequence's tokens will be pushed again."""
        self.release()
        self.history = self.steerer.crossing.new_history()
        self.pushed = self.dropped = 0

    def _slide(self) -> None:
        excess = len(self.history.tokens) - self.steerer.context
        stride = max(1, self.steerer.context // 2)
        dropped = -(-max(excess, 0) // stride) * stride
        if dropped != self.dropped:
            self.dropped = dropped
            # Every position has another token now, and others may be reading the pages that it had.
            self.release()

    def spoil(self) -> None:
        """What its models have computed is not finite: leave nothing of it to others."""
        for runner, cache in zip(self.steerer.runners, self.caches, strict=True):
            runner.cache.invalidate(cache.pages)

    def release(self) -> None:
        """Give all pages back; keys and values are computed anew when they are needed."""
        for runner, cache in zip(self.steerer.runners, self.caches, strict=True):
            runner.cache.allocator.release(cache.pages)
        self.caches = [RowKV() for _ in self.steerer.runners]


class Steerer:
    """One adapter version attached to one base. Lives as long as somebody refers to it."""

    def __init__(
        self,
        adapter: Adapter,
        crossing: Crossing,
        page_size: int,
        prefix_caching: bool = True,
        capture: Capture | None = None,
    ) -> None:
        self.adapter = adapter
        self.crossing = crossing
        self.runners = [
            Runner(
                model,
                KVCache(
                    PageAllocator(_INITIAL_PAGES, page_size, growable=True, prefix_caching=prefix_caching)
                ),
                capture,
            )
            for model in adapter.models
        ]
        self.context_limit = min(model.max_model_len for model in adapter.models)
        self.context = max(1, self.context_limit - CONTEXT_RESERVE)

    @property
    def shares_vocabulary(self) -> bool:
        """True when base and steering tokens are the same, so that no text is needed between them."""
        return self.crossing.by_text is None

    @property
    def spelling(self) -> Spelling:
        """How the base's tokens begin in the steering vocabulary. Raises RuntimeError where there is but one."""
        if self.crossing.by_text is None:
            raise RuntimeError("base and adapter share a vocabulary")
        return self.crossing.by_text.spelling

    @property
    def prefix_length(self) -> int:
        """Tokens that the steering tokenizer puts before every text."""
        return len(self.crossing.by_text.encoder.prefix) if self.crossing.by_text else 0

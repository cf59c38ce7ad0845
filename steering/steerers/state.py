"""One sequence's state in one steerer: its history, and its keys and values in each model."""

from __future__ import annotations

from collections.abc import Sequence

from steering.specs import ResolvedSteering
from steering.steerers.history_kv import HistoryKV
from steering.steerers.reading import read
from steering.steerers.steerer import Steerer
from steering.steerers.window import HistoryWindow


class SteererState:
    """Follows the base's tokens of one sequence. `pushed`: base tokens that the history has taken."""

    def __init__(self, steerer: Steerer, spec: ResolvedSteering) -> None:
        self.steerer = steerer
        self.spec = spec
        self.window = self._empty_window()
        self.caches = [HistoryKV(runner) for runner in steerer.runners]
        self.pushed = 0

    @property
    def reencoded(self) -> int:
        """History tokens that a later encoding replaced."""
        return self.window.history.reencoded

    def advance(self, tokens: Sequence[int], length: int) -> None:
        """Take the sequence's base tokens up to `length` that are new since the last call."""
        for index in range(self.pushed, length):
            changed = self.window.push(tokens[index])
            for cache in self.caches:
                cache.truncate(changed)
        self.pushed = length
        if self.window.slide():
            # Other sequences may be reading the pages, so they are given back rather than overwritten.
            self.release()

    def takes_many(self, tokens: Sequence[int], length: int) -> bool:
        """True when the positions up to `length` of these base tokens fit the context, and can be scored together."""
        context = self.steerer.context
        if self.steerer.shares_vocabulary:
            return length <= context
        ahead = self.window.history.copy()
        for index in range(self.pushed, length):
            ahead.push(tokens[index])
            # The encoding of a longer text may be shorter again.
            if len(ahead.tokens) > context:
                return False
        return True

    def views(self, tokens: Sequence[int], lengths: Sequence[int]) -> list[SteererState]:
        """States that stand at each of these base lengths, ascending. This state moves to the last one.

        The history at a length is nearly always a prefix of the whole text's encoding. So the whole text is computed
        once, and each view shares its keys and values. Views must be released. The positions must fit the context.
        """
        made: list[SteererState] = []
        for length in lengths:
            self.advance(tokens, length)
            view = SteererState(self.steerer, self.spec)
            view.window, view.pushed = self.window.copy(), length
            made.append(view)
        try:
            for number, cache in enumerate(self.caches):
                read(self.steerer.runners[number], [(cache, self.window, 1)])
                cache.lend(self.window, [(view.caches[number], view.window) for view in made])
        except BaseException:
            for view in made:
                view.invalidate()
                view.release()
            raise
        return made

    def reset(self) -> None:
        """Give the pages back and start over. The sequence's tokens will be pushed again."""
        self.release()
        self.window = self._empty_window()
        self.pushed = 0

    def invalidate(self) -> None:
        """Hide everything computed here from other sequences: it is not finite."""
        for cache in self.caches:
            cache.invalidate()

    def release(self) -> None:
        """Give all pages back. Keys and values are computed again when they are needed."""
        for cache in self.caches:
            cache.release()

    def _empty_window(self) -> HistoryWindow:
        crossing = self.steerer.crossing
        return HistoryWindow(crossing.new_history(), self.steerer.context, crossing.prefix_length)

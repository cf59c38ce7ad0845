"""One sequence's keys and values in one steering model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steering.crossing.text import common_prefix
from steering.model.row_input import RowInput
from steering.model.runner import Runner
from steering.steerers.window import HistoryWindow

# The longest piece of a history that is computed in one forward pass.
_MAX_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Fork:
    """Pages for a continuation that leaves the sequence's own keys and values untouched.

    `pages` cover the continuation and everything before it. `fresh` are the ones to release. `copied` is the own page
    to copy from and the fresh page to copy to, where the continuation starts inside a page.
    """

    pages: list[int]
    fresh: list[int]
    copied: tuple[int, int] | None


class HistoryKV:
    """The pages that hold a window's keys and values. Only this class changes them."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.pages: list[int] = []
        self._computed = 0
        self._cached = 0  # positions up to which the pool's prefix cache knows the full pages

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on: their tokens have changed."""
        self._computed = min(self._computed, length)

    def next_input(self, window: HistoryWindow, wanted: int) -> RowInput:
        """The tokens that the model has not read, with logits for the last `wanted` of them.

        Allocates their pages. A long history is computed here, all but its last piece.
        """
        allocator = self.runner.cache.allocator
        if not self.pages and wanted == 1 and not window.dropped:
            # Another sequence may have read the same beginning. The prefix cache holds settled positions only.
            self.pages = allocator.find_prefix(window.history.tokens[: window.settled])
            self._computed = self._cached = len(self.pages) * allocator.page_size
        start = min(self._computed, window.length - wanted)
        missing = allocator.pages_for(window.length) - len(self.pages)
        self.pages.extend(allocator.allocate(max(missing, 0)))
        while window.length - wanted - start > _MAX_CHUNK:
            chunk = window.tokens(start, start + _MAX_CHUNK)
            self.runner.forward([RowInput(chunk, start, self.pages, _MAX_CHUNK)])
            start += _MAX_CHUNK
        self._computed = window.length
        tokens = window.tokens(start)
        return RowInput(tokens, start, self.pages, len(tokens) - wanted)

    def cache_settled(self, window: HistoryWindow) -> None:
        """Offer the settled positions to the prefix cache, once they are computed."""
        # A cached page must never be written to. The last position may be: it is computed again where the next base
        # token adds no text.
        known = min(window.settled, window.length - 1)
        if known > self._cached:
            allocator = self.runner.cache.allocator
            allocator.cache_prefix(window.history.tokens[:known], self.pages, self._cached)
            self._cached = known

    def lend(self, window: HistoryWindow, views: Sequence[tuple[HistoryKV, HistoryWindow]]) -> None:
        """Give other positions of the same text their keys and values, as far as they have them in common.

        Each view shares the whole pages that it has in common with `window`; the page in which it departs, or has its
        last token, is copied. The views must be empty, and must be released. `window` must not be cut, and must have
        been computed.
        """
        allocator = self.runner.cache.allocator
        copies: list[tuple[int, int]] = []
        for cache, view in views:
            # The last token is computed again, because its logits are wanted.
            common = max(0, min(common_prefix(view.history.tokens, window.history.tokens), view.length - 1))
            fork = self.fork(common, view.length - common)
            allocator.share(fork.pages[: len(fork.pages) - len(fork.fresh)])
            if fork.copied:
                copies.append(fork.copied)
            cache.pages, cache._computed = fork.pages, common
            cache._cached = view.length  # a view's pages are not for others to find
        self.copy_pages(copies)

    def fork(self, start: int, count: int) -> Fork:
        """Pages for `count` tokens from position `start` on. Pages before that are the sequence's own."""
        allocator = self.runner.cache.allocator
        whole = start // allocator.page_size
        fresh = allocator.allocate(allocator.pages_for(start + count) - whole)
        copied = (self.pages[whole], fresh[0]) if start % allocator.page_size else None
        return Fork([*self.pages[:whole], *fresh], fresh, copied)

    def copy_pages(self, copies: Sequence[tuple[int, int]]) -> None:
        """Make the forks' copies, all at once."""
        cache = self.runner.cache
        cache.make_room()
        if copies:
            sources, targets = zip(*copies, strict=True)
            cache.copy_pages(sources, targets)

    def invalidate(self) -> None:
        """Hide keys and values that are not finite from every other sequence."""
        self.runner.cache.invalidate(self.pages)

    def release(self) -> None:
        """Give all pages back."""
        self.runner.cache.allocator.release(self.pages)
        self.pages = []
        self._computed = self._cached = 0

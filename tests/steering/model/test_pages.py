"""The page allocator under any sequence of operations: no page is lost or shared by mistake."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from steering.model.pages import OutOfPagesError, PageAllocator

PAGE = 2
PAGES = 6
# Few different tokens, so that prefixes are often equal.
TEXTS = st.lists(st.integers(0, 2), min_size=1, max_size=8)


class Pool(RuleBasedStateMachine):
    """Sequences arrive, write their tokens into pages, are cached and leave.

    `content`: for each page, the tokens of its text up to the page's end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.allocator = PageAllocator(PAGES, PAGE, prefix_caching=True)
        self.held: list[list[int]] = []
        self.content: dict[int, tuple[int, ...]] = {}

    @rule(text=TEXTS)
    def admit(self, text: list[int]) -> None:
        shared = self.allocator.find_prefix(text)
        for number, page in enumerate(shared):
            # The whole prefix up to this page is equal, not only the page's own tokens.
            assert self.content[page] == tuple(text[: (number + 1) * PAGE])
        try:
            fresh = self.allocator.allocate(self.allocator.pages_for(len(text)) - len(shared))
        except OutOfPagesError:
            self.allocator.release(shared)
            return
        pages = shared + fresh
        for number, page in enumerate(fresh, len(shared)):
            assert all(page not in other for other in self.held)
            self.content[page] = tuple(text[: (number + 1) * PAGE])
        self.allocator.cache_prefix(text, pages, len(shared) * PAGE)
        self.held.append(pages)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        pages = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.allocator.release(pages)

    @invariant()
    def nothing_is_lost(self) -> None:
        self.allocator.check_integrity()
        assert self.allocator.used == len({page for pages in self.held for page in pages})
        assert self.allocator.used + self.allocator.available == PAGES


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_too_few_pages_takes_none() -> None:
    allocator = PageAllocator(3, PAGE)
    allocator.allocate(2)
    with pytest.raises(OutOfPagesError, match="2 pages asked for, 1 available"):
        allocator.allocate(2)
    assert allocator.available == 1


def test_a_growable_pool_grows() -> None:
    allocator = PageAllocator(2, PAGE, growable=True)
    pages = allocator.allocate(7)
    assert len(set(pages)) == 7
    allocator.release(pages)
    allocator.check_integrity()


def test_the_least_recently_used_prefix_goes_first() -> None:
    allocator = PageAllocator(3, PAGE, prefix_caching=True)
    for text in ([0, 0, 0], [1, 1, 1]):
        pages = allocator.allocate(1)
        allocator.cache_prefix(text[:PAGE], pages)
        allocator.release(pages)
    held = allocator.allocate(2)
    assert allocator.find_prefix([0, 0, 0]) == []
    kept = allocator.find_prefix([1, 1, 1])
    assert len(kept) == 1
    allocator.release([*held, *kept])
    allocator.check_integrity()

"""The page allocator of a key/value pool: allocation, sharing and the prefix cache. No tensors.

A page holds the keys and values of `page_size` consecutive positions. Pages are reference-counted. A full page in the
prefix cache stays there after its last holder has released it, until the page is needed (least recently used first).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class OutOfPagesError(RuntimeError):
    """The pool has fewer free pages than were asked for."""


class PageAllocator:
    """Hands out page numbers below `num_pages`; a growable allocator at least doubles instead of running out."""

    def __init__(
        self, num_pages: int, page_size: int, *, growable: bool = False, prefix_caching: bool = False
    ) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self.prefix_caching = prefix_caching
        self.prefix_queries = 0
        self.prefix_hits = 0
        self._growable = growable
        self._free = list(range(num_pages - 1, -1, -1))
        self._references: dict[int, int] = {}
        # The key of a cached page is (serial of the page before it, its own tokens). Serials are never reused, so the
        # children of an evicted page are never mistaken for children of a later page with the same number.
        self._cached: dict[tuple[int, tuple[int, ...]], tuple[int, int]] = {}
        self._key_of_page: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._next_serial = 1

    @property
    def available(self) -> int:
        """The number of pages that can be allocated now, idle cached pages included."""
        return len(self._free) + len(self._idle)

    @property
    def used(self) -> int:
        """The number of pages that have a holder."""
        return len(self._references)

    def pages_for(self, length: int) -> int:
        """The number of pages that `length` positions need."""
        return -(-length // self.page_size)

    def slot(self, pages: Sequence[int], position: int) -> int:
        """The index of a row's position in the pool's flattened pages."""
        return pages[position // self.page_size] * self.page_size + position % self.page_size

    def allocate(self, count: int) -> list[int]:
        """Allocate `count` pages with one reference each.

        Raises OutOfPagesError, and allocates nothing, when there are too few.
        """
        if count > self.available and self._growable:
            self._grow(count)
        if count > self.available:
            raise OutOfPagesError(f"{count} pages asked for, {self.available} available")
        pages = []
        for _ in range(count):
            page = self._free.pop() if self._free else self._evict()
            self._references[page] = 1
            pages.append(page)
        return pages

    def share(self, pages: Sequence[int]) -> None:
        """Add a reference to each page."""
        for page in pages:
            self._references[page] = self._references.get(page, 0) + 1
            self._idle.pop(page, None)

    def release(self, pages: Sequence[int]) -> None:
        """Drop a reference to each page. A page without holders is free, or idle where it is in the prefix cache."""
        for page in reversed(pages):
            self._references[page] -= 1
            if self._references[page]:
                continue
            del self._references[page]
            if page in self._key_of_page:
                self._idle[page] = None
            else:
                self._free.append(page)

    def uncache(self, pages: Sequence[int]) -> list[int]:
        """Remove the pages that have a single holder from the prefix cache; returns those pages."""
        exclusive = [page for page in pages if self._references[page] == 1]
        for page in exclusive:
            key = self._key_of_page.pop(page, None)
            if key is not None:
                del self._cached[key]
        return exclusive

    def find_prefix(self, tokens: Sequence[int]) -> list[int]:
        """Find the longest run of cached full pages that `tokens` starts with, and take a reference to each.

        At least the last token is left out, because the caller needs its logits.
        """
        if not self.prefix_caching:
            return []
        pages: list[int] = []
        parent = 0
        for start in range(0, (len(tokens) - 1) // self.page_size * self.page_size, self.page_size):
            self.prefix_queries += self.page_size
            entry = self._cached.get((parent, tuple(tokens[start : start + self.page_size])))
            if entry is None:
                break
            parent, page = entry
            pages.append(page)
        self.prefix_hits += len(pages) * self.page_size
        self.share(pages)
        return pages

    def cache_prefix(self, tokens: Sequence[int], pages: Sequence[int], start: int = 0) -> None:
        """Add the full pages of `tokens` to the prefix cache; pages wholly before `start` are in it already."""
        if not self.prefix_caching:
            return
        size = self.page_size
        first = start // size
        parent = self._serial(pages[first - 1]) if first else 0
        for number in range(first, len(tokens) // size):
            if parent is None:
                return
            key = (parent, tuple(tokens[number * size : (number + 1) * size]))
            if key not in self._cached and pages[number] not in self._key_of_page:
                self._cached[key] = (self._next_serial, pages[number])
                self._key_of_page[pages[number]] = key
                self._next_serial += 1
            parent = self._cached[key][0] if key in self._cached else None

    def check_integrity(self) -> None:
        """Check that every page is exactly one of free, idle and used. Raises RuntimeError otherwise."""
        owners = [*self._free, *self._idle, *self._references]
        if sorted(owners) != list(range(self.num_pages)):
            raise RuntimeError(f"pages lost or doubled: {len(owners)} owned, {self.num_pages} exist")
        if any(count < 1 for count in self._references.values()):
            raise RuntimeError("a page is held with no reference")

    def _serial(self, page: int) -> int | None:
        key = self._key_of_page.get(page)
        return None if key is None else self._cached[key][0]

    def _evict(self) -> int:
        page, _ = self._idle.popitem(last=False)
        del self._cached[self._key_of_page.pop(page)]
        return page

    def _grow(self, count: int) -> None:
        more = max(self.num_pages, count)
        self._free = list(range(self.num_pages + more - 1, self.num_pages - 1, -1)) + self._free
        self.num_pages += more

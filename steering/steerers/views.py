"""Several positions of one text at once, where a steering model has tokens of its own.

Scoring a prompt wants the steered distribution after every base token. The history there is an encoding of the text up
to that token, and nearly always a beginning of the whole text's encoding. So the whole is computed once, and a *view*
of each position borrows what it has in common with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from steering.crossing.text import common_prefix
from steering.steerers.reading import read_all
from steering.steerers.steerer import RowKV, SteeringRow


def lend(row: SteeringRow, views: Sequence[SteeringRow]) -> None:
    """Compute a row's keys and values, and give each view pages that begin as the row's do.

    Whole pages are shared; the one in which a view departs, or has its last token, is copied. The views must be
    released. Nothing may be cut of the row's history.
    """
    for number, runner in enumerate(row.steerer.runners):
        read_all(runner, number, row)
        allocator, own = runner.cache.allocator, row.caches[number].pages
        sources: list[int] = []
        targets: list[int] = []
        for view in views:
            # The last token is computed again: its logits are what is wanted.
            common = max(0, min(common_prefix(view.history.tokens, row.history.tokens), view.length - 1))
            whole = common // allocator.page_size
            fresh = allocator.allocate(allocator.pages_for(view.length) - whole)
            allocator.share(own[:whole])
            if common % allocator.page_size:
                sources.append(own[whole])
                targets.append(fresh[0])
            # What a view computes is nothing for others to find.
            view.caches[number] = RowKV([*own[:whole], *fresh], common, remembered=view.length)
        runner.cache.make_room()
        if sources:
            runner.cache.copy_pages(sources, targets)

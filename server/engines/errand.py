"""A function for an engine's thread to call between two steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Errand:
    """A function that the engine's thread calls between two steps, and the future of the caller who waits for it."""

    def __init__(self, function: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.done: asyncio.Future[None] = loop.create_future()

    def finish(self, error: BaseException | None) -> None:
        """Wakes the caller, with the error that the function raised, if any. Event loop only."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

"""Turns at something that only one can use at a time, given to clients in rotation."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class TooManyWaitError(Exception):
    """A client has too many turns outstanding."""


class FairTurns:
    """Gives one turn at a time. Event loop only.

    However many turns one client wants, another client's waits for at most one of them: each client has a queue of its
    own, of at most `longest`, and the clients' queues take turns.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._taken = False
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Waits for a turn, which lasts as long as the block. Raises TooManyWaitError."""
        await self._wait(client)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, client: str) -> None:
        if not self._taken:
            self._taken = True
            return
        queue = self._waiting.setdefault(client, deque())
        if len(queue) >= self._longest:
            raise TooManyWaitError
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            client, queue = self._waiting.popitem(last=False)
            future = queue.popleft()
            if queue:
                self._waiting[client] = queue
            if not future.done():
                future.set_result(None)
                return
        self._taken = False

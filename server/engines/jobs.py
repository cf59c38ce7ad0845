"""The reservation and then the job that one HTTP request has at an engine. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.errors import ApiError
from server.names import adapter_label
from steering.engine.outputs import StepOutput
from steering.engine.request import Request
from steering.specs import ResolvedSteering


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Limits on each job.

    `seconds`: how long after the request's arrival it must have ended; None for no limit. `backlog`: how many outputs
    of each sequence may wait for the client.
    """

    seconds: float | None = None
    backlog: int = 1024


@dataclass(slots=True)
class Reservation:
    """Places of `client` for `count` sequences. `arrived` is the request's arrival by the event loop's clock."""

    count: int
    arrived: float
    client: str = ""

    def give_up(self) -> int:
        """Reserves nothing from now on; returns how many places there were."""
        count, self.count = self.count, 0
        return count


class Job:
    """The sequences of one request, with a bounded queue of their outputs."""

    def __init__(
        self,
        requests: Sequence[Request],
        loop: asyncio.AbstractEventLoop,
        *,
        arrived: float,
        backlog: int,
        client: str = "",
    ) -> None:
        self.requests = tuple(requests)
        self.request_ids = tuple(request.request_id for request in requests)
        self.adapter = adapter_label(spec.adapter for spec in self.requests[0].steering)
        self.arrived = arrived
        self.client = client
        self.admitted: asyncio.Future[tuple[ResolvedSteering, ...]] = loop.create_future()
        self.started: set[str] = set()
        self._loop = loop
        self._deadline: asyncio.TimerHandle | None = None
        self._unfinished = set(self.request_ids)
        self._backlog = backlog * len(self.request_ids)
        self._outputs: asyncio.Queue[StepOutput | ApiError] = asyncio.Queue()

    @property
    def unfinished(self) -> int:
        """The number of sequences that have not ended."""
        return len(self._unfinished)

    def expire_after(self, seconds: float, expire: Callable[[Job], None]) -> None:
        """Calls `expire` this long after the request arrived, unless every sequence has ended by then."""
        self._deadline = self._loop.call_at(self.arrived + seconds, expire, self)

    def start(self, request_id: str) -> float:
        """Notes that a sequence runs for the first time; returns the seconds since the request arrived."""
        self.started.add(request_id)
        return self._loop.time() - self.arrived

    def end(self, request_id: str) -> None:
        """Notes that a sequence has ended, for any reason."""
        self._unfinished.discard(request_id)
        if not self._unfinished and self._deadline is not None:
            self._deadline.cancel()

    def put(self, output: StepOutput) -> bool:
        """Queues one output without blocking. Where the queue is full, empties it and returns False."""
        if self._outputs.qsize() >= self._backlog:
            while not self._outputs.empty():
                self._outputs.get_nowait()
            return False
        self._outputs.put_nowait(output)
        return True

    def fail(self, error: ApiError) -> None:
        """Ends the job with `error`, whether it waits for admission or for outputs."""
        if not self.admitted.done():
            self.admitted.set_exception(error)
        self._outputs.put_nowait(error)

    async def next(self) -> StepOutput:
        """The next output of any of the sequences; raises the `ApiError` that ended the job."""
        output = await self._outputs.get()
        if isinstance(output, ApiError):
            raise output
        return output

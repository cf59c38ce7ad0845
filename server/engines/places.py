"""The places for sequences at one engine, and how many of them one client may have."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager

from server.engines.jobs import Job, Reservation
from server.errors import ApiError, bad_request


class Places:
    """Counts the sequences of each client that run, wait or have a place reserved. Event loop only.

    `capacity` is the most of all clients. With a `share` below 1, one client has at most that share of them; and of its
    sequences, at most that share of the engine's `running` places are handed to the engine, so that the others wait for
    each other and for nobody else.
    """

    def __init__(self, name: str, capacity: int, *, running: int | None = None, share: float = 1.0) -> None:
        self.capacity = capacity
        self._name = name
        self._most_held = max(1, int(capacity * share))
        self._most_entered = None if share == 1.0 or running is None else max(1, int(running * share))
        self._held: Counter[str] = Counter()
        self._entered: Counter[str] = Counter()
        self._jobs_entered: set[Job] = set()
        self._waiting: dict[str, deque[Job]] = {}

    @property
    def taken(self) -> int:
        """The places that all clients have."""
        return self._held.total()

    @contextmanager
    def reserve(self, count: int, client: str, arrived: float) -> Iterator[Reservation]:
        """Reserves places for `count` sequences, until they `enter` or the block ends.

        Raises `ApiError`: 429 where the queue is full or the client's share is used up, 400 for more sequences than
        there could ever be places.
        """
        most = min(self.capacity, self._most_held)
        if count > most:
            raise bad_request(f"A request may have {most} sequences at most, not {count}.", "n")
        if self.taken + count > self.capacity:
            raise ApiError(
                429, f"The queue for {self._name!r} is full ({self.capacity} sequences); try again later."
            )
        if self._held[client] + count > self._most_held:
            raise ApiError(
                429,
                f"One API key, or one address without a key, may have {self._most_held} of the {self.capacity} "
                f"sequences for {self._name!r} at a time; try again when some of yours have ended.",
            )
        reservation = Reservation(count, arrived, client)
        _add(self._held, client, count)
        try:
            yield reservation
        finally:
            self.give_up(reservation)

    def give_up(self, reservation: Reservation) -> None:
        """Gives reserved places back; may be repeated."""
        _add(self._held, reservation.client, -reservation.give_up())

    def enter(self, job: Job) -> list[Job]:
        """Takes in a job; returns the jobs that the engine may have now."""
        _add(self._held, job.client, len(job.request_ids))
        self._waiting.setdefault(job.client, deque()).append(job)
        return self._ready(job.client)

    def leave(self, job: Job) -> list[Job]:
        """Notes that one sequence of a job has ended; returns the jobs that the engine may have now."""
        _add(self._held, job.client, -1)
        if job in self._jobs_entered:
            _add(self._entered, job.client, -1)
        if not job.unfinished:
            self._jobs_entered.discard(job)
            if (queue := self._waiting.get(job.client)) is not None and job in queue:
                queue.remove(job)
        return self._ready(job.client)

    def _ready(self, client: str) -> list[Job]:
        ready: list[Job] = []
        queue = self._waiting.get(client, deque())
        while queue and self._may_enter(client, queue[0].unfinished):
            job = queue.popleft()
            _add(self._entered, client, job.unfinished)
            self._jobs_entered.add(job)
            ready.append(job)
        if not queue:
            self._waiting.pop(client, None)
        return ready

    def _may_enter(self, client: str, count: int) -> bool:
        if self._most_entered is None or not self._entered[client]:
            # A job of more sequences than the share runs alone.
            return True
        return self._entered[client] + count <= self._most_entered


def _add(counter: Counter[str], client: str, count: int) -> None:
    """Adds to a client's count, and forgets clients that have nothing: there may be any number of them."""
    counter[client] += count
    if not counter[client]:
        del counter[client]

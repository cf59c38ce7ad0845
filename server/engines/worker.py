"""The thread that owns one base's engine, and how requests and outputs cross between it and the event loop.

The thread rule: only the worker's thread calls the engine's `add_request`, `abort` and `step`, and only the event loop
touches jobs. Requests cross in through the inbox, outputs cross back by one `call_soon_threadsafe` for each step.
Delivery never blocks the engine.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from server.engines.errand import Errand
from server.engines.jobs import Job, JobLimits, Reservation
from server.engines.observer import Observer
from server.engines.places import Places
from server.engines.port import EnginePort
from server.engines.restarts import RestartBudget
from server.errors import ApiError, bad_request, unavailable
from steering.engine.outputs import EngineStats, StepOutput
from steering.engine.request import Request
from steering.engine.step_report import StepReport
from steering.errors import InvalidRequestError
from steering.specs import ResolvedSteering

logger = logging.getLogger(__name__)

_STOP_SECONDS = 10.0
"""The longest that a stopping worker waits for its engine's current step."""


class EngineWorker:
    """Runs one engine in one thread.

    When a step raises, the engine is restarted: the requests that it had get a 503, and later ones are served. After
    too many restarts, or where restarting fails, the engine is dead, and every waiting and later request gets a 503.

    `places` are those of the sequences that run, wait or have a place reserved.
    """

    def __init__(
        self,
        name: str,
        engine: EnginePort,
        *,
        places: Places,
        limits: JobLimits | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.name = name
        self.engine = engine
        self.places = places
        self.stats: EngineStats = engine.stats()
        self.failure: str | None = None
        self.restarts = RestartBudget()
        self._limits = limits or JobLimits()
        self._observer = observer or Observer()
        self._inbox: queue.SimpleQueue[Job | Errand | tuple[str, ...] | None] = queue.SimpleQueue()
        self._jobs: dict[str, Job] = {}
        self._errands: set[Errand] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=f"engine-{name}", daemon=True)
        self._stopping = threading.Event()

    @property
    def pending(self) -> int:
        """Sequences that run, wait or have a place reserved."""
        return self.places.taken

    def load(self) -> tuple[Counter[str], Counter[str]]:
        """The numbers of running and of waiting sequences, by adapter label."""
        running, waiting = Counter[str](), Counter[str]()
        for request_id, job in self._jobs.items():
            (running if request_id in job.started else waiting)[job.adapter] += 1
        return running, waiting

    def start(self) -> None:
        """Starts the thread. Must be called on the event loop, which will get the outputs."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Ends the thread after its current step; unfinished jobs get a 503."""
        self._stopping.set()
        self._inbox.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)
        self.end_all("The server is shutting down.")

    def end_all(self, message: str) -> None:
        """Ends every job with a 503 of this message, and refuses later ones with it."""
        self.failure = self.failure or message
        jobs = set(self._jobs.values())
        for job in jobs:
            self.release(job)
            job.fail(unavailable(self.failure))
        for errand in self._errands:
            errand.finish(unavailable(self.failure))

    async def run(self, function: Callable[[], None]) -> None:
        """Has the engine's thread call `function` between two steps; raises what it raises, or a 503.

        The function is called even if the caller is cancelled.
        """
        loop = self._require_running()
        errand = Errand(function, loop)
        self._errands.add(errand)
        self._inbox.put(errand)
        try:
            await errand.done
        finally:
            self._errands.discard(errand)

    def reserve(self, count: int, client: str = "") -> AbstractContextManager[Reservation]:
        """Reserves places of `client` for `count` sequences, until they are submitted or the block ends.

        A request reserves its places before it is tokenized, so that a full queue costs no tokenizing. Raises a 503
        where the engine has died, and what `Places.reserve` raises.
        """
        return self.places.reserve(count, client, arrived=self._require_running().time())

    async def submit(
        self, requests: Sequence[Request], reservation: Reservation | None = None
    ) -> tuple[Job, tuple[ResolvedSteering, ...]]:
        """Admits `requests` together, in their reserved places; returns their job and what steers them.

        Raises `ApiError`: 400 where the engine refuses one of them, and without a reservation what `reserve` raises.
        """
        if reservation is None:
            with self.reserve(len(requests)) as own:
                return await self.submit(requests, own)
        loop = self._require_running()
        backlog, client = self._limits.backlog, reservation.client
        job = Job(requests, loop, arrived=reservation.arrived, backlog=backlog, client=client)
        self.places.give_up(reservation)
        self._jobs.update((request_id, job) for request_id in job.request_ids)
        if self._limits.seconds is not None:
            job.expire_after(self._limits.seconds, self._expire)
        self._hand_over(self.places.enter(job))
        try:
            return job, await job.admitted
        except BaseException:
            # Also where the client leaves while its request waits for admission.
            self.release(job)
            raise

    def release(self, job: Job, request_ids: Sequence[str] | None = None) -> None:
        """Aborts the unfinished sequences of `job`, or those of `request_ids`. Event loop only; may be repeated."""
        wanted = job.request_ids if request_ids is None else request_ids
        unfinished = tuple(request_id for request_id in wanted if self._forget(request_id) is not None)
        if unfinished:
            self._inbox.put(unfinished)

    def _require_running(self) -> asyncio.AbstractEventLoop:
        if self.failure is not None:
            raise unavailable(self.failure)
        if self._loop is None:
            raise RuntimeError("the worker has not been started")
        return self._loop

    def _forget(self, request_id: str) -> Job | None:
        job = self._jobs.pop(request_id, None)
        if job is not None:
            job.end(request_id)
            self._hand_over(self.places.leave(job))
        return job

    def _hand_over(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._inbox.put(job)

    def _expire(self, job: Job) -> None:
        self.release(job)
        job.fail(
            unavailable(f"The request did not end within the limit of {self._limits.seconds:g} seconds.")
        )

    # Called by the engine's thread through `_call`, and run on the event loop.

    def _deliver(self, outputs: Sequence[StepOutput], report: StepReport) -> None:
        for request_id in report.started:
            if (job := self._jobs.get(request_id)) is not None:
                self._observer.started(self.name, job.adapter, job.start(request_id))
        for output in outputs:
            job = self._jobs.get(output.request_id)
            if job is None:
                continue
            if output.finish_reason is not None:
                self._forget(output.request_id)
            if not job.put(output):
                self.release(job)
                job.fail(ApiError(408, "The reply was read too slowly, and what waited became too much."))
        self._observer.stepped(self.name, report)

    def _admit(self, job: Job, steering: tuple[ResolvedSteering, ...]) -> None:
        if not job.admitted.done():
            job.admitted.set_result(steering)

    def _refuse(self, job: Job, error: ApiError) -> None:
        for request_id in job.request_ids:
            self._forget(request_id)
        job.fail(error)

    def _drop(self, request_ids: Sequence[str]) -> None:
        for job in {job for request_id in request_ids if (job := self._jobs.get(request_id)) is not None}:
            self.release(job)
            job.fail(unavailable(f"The engine of {self.name!r} has restarted after a fault; try again."))

    # Run on the engine's thread.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001 - whatever the device or a pool raises
                    self._restart(error)
        except BaseException:
            logger.exception("the engine of %r has died", self.name)
            self._call(
                self.end_all, f"The engine of {self.name!r} has stopped after a fault; restart the server."
            )

    def _turn(self) -> None:
        """Take what is in the inbox, and run one step."""
        self._drain_inbox(block=not self.engine.has_work)
        if not self._stopping.is_set() and self.engine.has_work:
            outputs = self.engine.step()
            self.stats = self.engine.stats()
            self._call(self._deliver, outputs, self.engine.last_step)

    def _restart(self, error: Exception) -> None:
        """Restart the engine after `error`, or raise it where that was done too often."""
        if not self.restarts.spend():
            raise error
        logger.error("the engine of %r restarts after a fault", self.name, exc_info=error)
        dropped = self.engine.restart()
        self.stats = self.engine.stats()
        self._call(self._drop, dropped)

    def _drain_inbox(self, *, block: bool) -> None:
        while True:
            try:
                item = self._inbox.get(block=block)
            except queue.Empty:
                return
            block = False
            if isinstance(item, Job):
                self._add(item)
            elif isinstance(item, Errand):
                self._do(item)
            elif item is not None:
                for request_id in item:
                    self.engine.abort(request_id)
            self.stats = self.engine.stats()

    def _add(self, job: Job) -> None:
        added: list[str] = []
        try:
            for request in job.requests:
                # All requests of a job name the same adapters, and no adapter changes between them.
                steering = self.engine.add_request(request)
                added.append(request.request_id)
        except Exception as error:  # noqa: BLE001 - the job gets it, and the engine goes on
            for request_id in added:
                self.engine.abort(request_id)
            self._call(self._refuse, job, self._refusal(error))
        else:
            self._call(self._admit, job, steering)

    def _refusal(self, error: Exception) -> ApiError:
        if isinstance(error, InvalidRequestError):
            return bad_request(str(error), error.param)
        logger.error("the engine of %r failed to take a request", self.name, exc_info=error)
        return ApiError(500, "The engine failed on this request; the server's log says why.")

    def _do(self, errand: Errand) -> None:
        error: Exception | None = None
        try:
            errand.function()
        except Exception as raised:  # noqa: BLE001 - the caller gets it, and the engine goes on
            error = raised
        self._call(errand.finish, error)

    def _call(self, function: object, *args: object) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(function, *args)  # type: ignore[arg-type]

"""The thread that owns one base's engine, and how requests and outputs cross between it and the event loop.

The thread rule: only the worker's thread calls `add_request`, `abort` and `step`; only the event loop touches the
jobs. One hop in (the inbox), one hop out (`call_soon_threadsafe`, once a step). Delivery never blocks the engine.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Sequence

from server.engine_port import EnginePort
from server.errors import ApiError, bad_request, unavailable
from steering.types import EngineStats, InvalidRequestError, Request, ResolvedSteering, StepOutput

logger = logging.getLogger(__name__)


class Job:
    """What one HTTP request has in the engine: some sequences, and a queue of their outputs. Event loop only."""

    def __init__(self, requests: Sequence[Request], loop: asyncio.AbstractEventLoop) -> None:
        self.requests = tuple(requests)
        self.request_ids = tuple(request.request_id for request in requests)
        self.admitted: asyncio.Future[tuple[ResolvedSteering, ...]] = loop.create_future()
        self._outputs: asyncio.Queue[StepOutput | ApiError] = asyncio.Queue()

    def put(self, output: StepOutput) -> None:
        """Queues one output; never blocks."""
        self._outputs.put_nowait(output)

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


class EngineWorker:
    """Runs one engine in one thread. Once the engine has raised, every waiting and later request gets a 503."""

    def __init__(self, name: str, engine: EnginePort, *, capacity: int) -> None:
        self.name = name
        self.engine = engine
        self.capacity = capacity
        self.stats: EngineStats = engine.stats()
        self.failure: str | None = None
        self._inbox: queue.SimpleQueue[Job | tuple[str, ...] | None] = queue.SimpleQueue()
        self._jobs: dict[str, Job] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=f"engine-{name}", daemon=True)
        self._stopping = threading.Event()

    @property
    def pending(self) -> int:
        """Sequences that run or wait."""
        return len(self._jobs)

    def start(self) -> None:
        """Starts the thread; to be called on the event loop that outputs are delivered to."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Ends the thread after its current step; what is still unfinished gets a 503."""
        self._stopping.set()
        self._inbox.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        self._fail_all("The server is shutting down.")

    async def submit(self, requests: Sequence[Request]) -> tuple[Job, tuple[ResolvedSteering, ...]]:
        """Admits `requests` together; returns their job and what steers them.

        Raises `ApiError`: 503 with a dead engine, 429 with a full queue, 400 for what the engine refuses.
        """
        if self.failure is not None:
            raise unavailable(self.failure)
        if self._loop is None:
            raise RuntimeError("the worker has not been started")
        if len(requests) > self.capacity:
            raise bad_request(
                f"A request may have {self.capacity} sequences at most, not {len(requests)}.", "n"
            )
        if self.pending + len(requests) > self.capacity:
            raise ApiError(
                429, f"The queue for {self.name!r} is full ({self.capacity} sequences); try again later."
            )
        job = Job(requests, self._loop)
        self._jobs.update((request_id, job) for request_id in job.request_ids)
        self._inbox.put(job)
        try:
            return job, await job.admitted
        except BaseException:
            # A client that goes away while its request waits for admission, too.
            self.release(job)
            raise

    def release(self, job: Job, request_ids: Sequence[str] | None = None) -> None:
        """Aborts what is unfinished of `job` (or of `request_ids`). Event loop only; harmless when all is done."""
        wanted = job.request_ids if request_ids is None else request_ids
        unfinished = tuple(
            request_id for request_id in wanted if self._jobs.pop(request_id, None) is not None
        )
        if unfinished and self.failure is None:
            self._inbox.put(unfinished)

    # The event loop's side of the way out.

    def _deliver(self, outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            job = self._jobs.get(output.request_id)
            if job is None:
                continue
            if output.finish_reason is not None:
                del self._jobs[output.request_id]
            job.put(output)

    def _admit(self, job: Job, steering: tuple[ResolvedSteering, ...]) -> None:
        if not job.admitted.done():
            job.admitted.set_result(steering)

    def _refuse(self, job: Job, error: ApiError) -> None:
        for request_id in job.request_ids:
            self._jobs.pop(request_id, None)
        job.fail(error)

    def _fail_all(self, message: str) -> None:
        self.failure = self.failure or message
        jobs, self._jobs = set(self._jobs.values()), {}
        for job in jobs:
            job.fail(unavailable(self.failure))

    # The thread's side.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._drain_inbox(block=not self.engine.has_work)
                if not self._stopping.is_set() and self.engine.has_work:
                    outputs = self.engine.step()
                    self.stats = self.engine.stats()
                    self._call(self._deliver, outputs)
        except BaseException:
            logger.exception("the engine of %r has died", self.name)
            self._call(
                self._fail_all, f"The engine of {self.name!r} has stopped after a fault; restart the server."
            )

    def _drain_inbox(self, *, block: bool) -> None:
        while True:
            try:
                item = self._inbox.get(block=block)
            except queue.Empty:
                return
            block = False
            if isinstance(item, Job):
                self._add(item)
            elif item is not None:
                for request_id in item:
                    self.engine.abort(request_id)
            self.stats = self.engine.stats()

    def _add(self, job: Job) -> None:
        added: list[str] = []
        try:
            steering = self.engine.resolve(job.requests[0])
            for request in job.requests:
                self.engine.add_request(request)
                added.append(request.request_id)
        except InvalidRequestError as error:
            for request_id in added:
                self.engine.abort(request_id)
            self._call(self._refuse, job, bad_request(str(error), error.param))
        else:
            self._call(self._admit, job, steering)

    def _call(self, function: object, *args: object) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(function, *args)  # type: ignore[arg-type]

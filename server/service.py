"""What an app serves: its bases, each with its worker, and how a request's `model` and `steering` choose among them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from server.config import Config
from server.engine_port import EnginePort
from server.errors import ApiError, bad_request, echo, unavailable
from server.metrics import Metrics
from server.protocol.common import SteeringChoice
from server.worker import EngineWorker
from steering.types import SteeringSpec

Result = TypeVar("Result")


class ServedBase:
    """One base: its engine, the thread that runs it and the thread that tokenizes for it."""

    def __init__(self, name: str, engine: EnginePort, *, capacity: int) -> None:
        self.name = name
        self.engine = engine
        self.worker = EngineWorker(name, engine, capacity=capacity)
        # One thread: a fast tokenizer must not be used by two at once, and the event loop must not wait for it.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix=f"tokenize-{name}")

    async def off_loop(self, function: Callable[[], Result]) -> Result:
        """Runs `function`, which uses the tokenizer, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, function)

    async def close(self) -> None:
        """Ends both threads."""
        await self.worker.stop()
        self._tokenizing.shutdown(wait=False, cancel_futures=True)


class Service:
    """The state of one app. Event loop only."""

    def __init__(self, config: Config, engines: Mapping[str, EnginePort]) -> None:
        if not engines:
            raise ValueError("a server needs at least one base")
        self.config = config
        capacity = config.max_num_seqs + config.max_queue
        self.bases = {name: ServedBase(name, engine, capacity=capacity) for name, engine in engines.items()}
        self.metrics = Metrics(lambda: {name: base.worker.stats for name, base in self.bases.items()})
        self.created = int(time.time())
        self.draining = False
        self.started = False

    def start(self) -> None:
        """Starts the workers; to be called on the event loop."""
        for base in self.bases.values():
            base.worker.start()
        self.started = True

    def drain(self) -> None:
        """Refuses new generations from now on; those that run go on."""
        self.draining = True

    async def close(self) -> None:
        """Stops everything."""
        self.drain()
        for base in self.bases.values():
            await base.close()

    @property
    def failure(self) -> str | None:
        """Why the server is not alive, where an engine has died."""
        return next((base.worker.failure for base in self.bases.values() if base.worker.failure), None)

    def require_open(self) -> None:
        """Raises a 503 while the server starts or drains."""
        if self.draining:
            raise unavailable("The server is shutting down.")
        if not self.started:
            raise unavailable("The server is still starting.")

    def base(self, name: str | None) -> ServedBase:
        """The base of this name, or the first where none is named; raises a 404."""
        if name is None:
            return next(iter(self.bases.values()))
        base = self.bases.get(name.partition(":")[0])
        if base is None:
            raise ApiError(404, f"The model {echo(repr(name))} is not served here.", param="model")
        return base

    def choose(
        self, model: str, steering: Sequence[SteeringChoice] | None
    ) -> tuple[ServedBase, tuple[SteeringSpec, ...]]:
        """The base and the adapters that a request names; raises a 404 or 400 that names the field."""
        base = self.base(model)
        adapters = base.engine.adapters()
        _, colon, adapter = model.partition(":")
        if colon and adapter not in adapters:
            raise ApiError(404, f"The model {echo(repr(model))} is not served here.", param="model")
        if colon and steering:
            raise bad_request(
                "An adapter is named in `model` and in `steering`; one place must do.", "steering"
            )
        if colon:
            return base, (SteeringSpec(adapter),)
        chosen = tuple(
            SteeringSpec(item.adapter, alpha=item.alpha, top_k=item.top_k, bridge=item.bridge)
            for item in steering or ()
        )
        for position, spec in enumerate(chosen):
            if spec.adapter not in adapters:
                raise bad_request(
                    f"There is no adapter {echo(repr(spec.adapter))} for {base.name!r}.", "steering"
                )
            if spec.adapter in {other.adapter for other in chosen[:position]}:
                raise bad_request(f"The adapter {spec.adapter!r} is named twice.", "steering")
        return base, chosen

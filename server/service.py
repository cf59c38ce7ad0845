"""The bases that an app serves, and the choice of base and adapters by a request's `model` and `steering`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

from fastapi import Request

from server.adapter_store import open_store
from server.config import Config
from server.engines.adapter_changes import AdapterChanges, OwnAdapters
from server.engines.jobs import JobLimits
from server.engines.loaded_adapters import LoadedAdapters
from server.engines.loading import named_adapters
from server.engines.places import Places
from server.engines.port import EnginePort
from server.engines.stored_adapters import StoredAdapters
from server.engines.worker import EngineWorker
from server.errors import ApiError, bad_request, echo, unavailable
from server.served_base import ServedBase
from server.telemetry.metrics import Metrics
from server.telemetry.vllm_names import VllmCollector
from steering.specs import SteeringSpec


class Service:
    """The state of one app. Event loop only."""

    def __init__(self, config: Config, engines: Mapping[str, EnginePort]) -> None:
        """Raises ValueError where there are no engines, and `StoreError` where the adapter store cannot be opened."""
        if not engines:
            raise ValueError("a server needs at least one base")
        self.config = config
        # The metrics read the workers, and the workers report to the metrics: so the metrics get the dictionary first,
        # and the workers are put into it afterwards.
        self.workers: dict[str, EngineWorker] = {}
        compatible = [VllmCollector(self.workers)] if config.metrics_compat == "vllm" else []
        self.metrics = Metrics(self.workers, *compatible)
        for name, engine in engines.items():
            self.workers[name] = EngineWorker(
                name,
                engine,
                places=Places(
                    name,
                    config.max_num_seqs + config.max_queue,
                    running=config.max_num_seqs,
                    share=config.max_share_per_key,
                ),
                limits=JobLimits(config.request_timeout, config.max_backlog),
                observer=self.metrics,
            )
        self.bases = {
            name: ServedBase(worker, max_prompt_bytes=int(config.max_prompt_bytes))
            for name, worker in self.workers.items()
        }
        loaded = LoadedAdapters(config, self.workers)
        self.stored: StoredAdapters | None = None
        if config.adapter_store is not None:
            store = open_store(config.adapter_store)
            self.stored = StoredAdapters(config, loaded, store, named_adapters(config))
        self.adapters: AdapterChanges = self.stored or OwnAdapters(config, loaded)
        self.scrape: Callable[[], Awaitable[bytes]] | None = None
        self.created = int(time.time())
        self._phase: Literal["starting", "serving", "draining"] = "starting"

    async def start(self) -> None:
        """Starts the workers, loads what the adapter store names, and serves. Raises `StoreError`."""
        for base in self.bases.values():
            base.worker.start()
        await self.adapters.start()
        if self._phase == "starting":
            self._phase = "serving"

    def drain(self) -> None:
        """Refuses new generations from now on; running ones go on."""
        self._phase = "draining"

    def end_running(self) -> None:
        """Ends every running request with a 503."""
        for worker in self.workers.values():
            worker.end_all("The server is shutting down.")

    async def metrics_text(self) -> bytes:
        """The metrics for Prometheus; those of all replicas, where `scrape` reaches them."""
        return self.metrics.render() if self.scrape is None else await self.scrape()

    async def close(self) -> None:
        """Drains, then stops every base."""
        self.drain()
        await self.adapters.close()
        for base in self.bases.values():
            await base.close()

    @property
    def failure(self) -> str | None:
        """The message about the first engine that has died; None while all are alive."""
        return next((base.worker.failure for base in self.bases.values() if base.worker.failure), None)

    def require_open(self) -> None:
        """Raises a 503 while the server starts or drains."""
        if self._phase == "draining":
            raise unavailable("The server is shutting down.")
        if self._phase == "starting":
            raise unavailable("The server is still starting.")

    def base(self, name: str | None) -> ServedBase:
        """The base in a model's name, which is `BASE` or `BASE:ADAPTER`; the first base for None. Raises a 404."""
        if name is None:
            return next(iter(self.bases.values()))
        base_name, colon, adapter = name.partition(":")
        base = self.bases.get(base_name)
        if base is None or (colon and adapter not in base.engine.session.adapters()):
            raise ApiError(404, f"The model {echo(repr(name))} is not served here.", param="model")
        return base

    async def settle(self, model: str | None, steering: Sequence[SteeringSpec] | None = None) -> None:
        """Waits until the adapters that a request names are those of the adapter store; raises a 503 where it cannot.

        Without a store it returns at once.
        """
        named = (model or "").partition(":")[2]
        await self.adapters.settle(
            [name for name in (named, *(spec.adapter for spec in steering or ())) if name]
        )

    def choose(
        self, model: str, steering: Sequence[SteeringSpec] | None
    ) -> tuple[ServedBase, tuple[SteeringSpec, ...]]:
        """The base and the adapters that a request names; raises a 404 or 400 that names the field at fault."""
        base = self.base(model)
        _, colon, adapter = model.partition(":")
        if colon and steering:
            raise bad_request(
                "An adapter is named in `model` and in `steering`; one place must do.", "steering"
            )
        if colon:
            return base, (SteeringSpec(adapter),)
        adapters = base.engine.session.adapters()
        chosen = tuple(steering or ())
        for position, spec in enumerate(chosen):
            if spec.adapter not in adapters:
                raise bad_request(
                    f"There is no adapter {echo(repr(spec.adapter))} for {base.name!r}.", "steering"
                )
            if spec.adapter in {other.adapter for other in chosen[:position]}:
                raise bad_request(f"The adapter {spec.adapter!r} is named twice.", "steering")
        return base, chosen


def service_of(request: Request) -> Service:
    """The service of the app that answers `request`."""
    service = request.app.state.service
    if not isinstance(service, Service):
        raise RuntimeError("the app was not made by build_app")
    return service

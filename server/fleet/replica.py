"""One replica: an app, and what Ray and the other replicas ask of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from ray import serve
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.app import build_app
from server.config import load_config
from server.fleet.metrics_text import merge
from server.service import Service
from server.telemetry.logs import setup_logging
from server.telemetry.request_record import REQUEST_ID_HEADER

NAME = "trimtab"
"""Of the deployment, and of the application of Serve."""

BROADCAST_SECONDS = 15.0
"""The longest that a replica waits for what it asked of all. One that is being started or ended may not answer."""

logger = logging.getLogger(__name__)


class Replica:
    """Serves the app in a process of Ray's. The constructor loads the models, so that it serves when it is made."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        config = load_config(**settings)
        setup_logging(level=config.log_level, as_json=config.log_json)
        self._app = build_app(config)
        self._service: Service = self._app.state.service
        others = Others()
        self._service.scrape = others.metrics
        if self._service.stored is not None:
            self._service.stored.peers = others
        self._ending: asyncio.Task[None] | None = None
        self._open = 0

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The app, for Ray."""

        # A plain function, by which uvicorn knows what it has.
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self._serve_request(scope, receive, send)

        return app

    async def check_health(self) -> None:
        """Ray calls this, and replaces the replica when it raises: where an engine has died."""
        if self._service.failure is not None:
            raise RuntimeError(self._service.failure)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """The load by which Ray decides on the number of replicas."""
        return {"pending": float(sum(worker.pending for worker in self._service.workers.values()))}

    async def converge(self) -> int:
        """Does what the adapter store says; returns the store's revision."""
        if self._service.stored is None:
            return 0
        await self._service.stored.converge()
        return self._service.stored.revision

    async def versions(self) -> dict[str, str]:
        """What this replica serves of the adapter store."""
        return {} if self._service.stored is None else self._service.stored.served()

    async def metrics(self) -> tuple[str, bytes]:
        """The replica's name and metrics."""
        return serve.get_replica_context().replica_id.unique_id, self._service.metrics.render()

    async def drain(self, seconds: float) -> None:
        """Refuses new generations from now on, and ends those that still run after `seconds` with a 503."""
        self._service.drain()

        async def end() -> None:
            await asyncio.sleep(seconds)
            self._service.end_running()

        self._ending = self._ending or asyncio.create_task(end())

    async def open_requests(self) -> int:
        """Requests whose reply has not ended."""
        return self._open

    async def _serve_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, without the request's id in its replies: Ray adds the same one, and a reply should have it once."""

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)[REQUEST_ID_HEADER]
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._open += 1
        try:
            await self._app(scope, receive, sender)
        finally:
            self._open -= 1


class Others:
    """All replicas, as one of them reaches them."""

    async def converge(self) -> None:
        """Has every replica do what the adapter store says; see `Peers`."""
        await self._ask("converge")

    async def versions(self) -> list[Mapping[str, str]]:
        """What each replica serves of the adapter store; see `Peers`. One that does not answer is left out."""
        return await self._ask("versions")

    async def metrics(self) -> bytes:
        """The metrics of all replicas that answer, in one text."""
        return merge(dict(sorted(await self._ask("metrics"))))

    async def _ask(self, method: str) -> list[Any]:
        handle = serve.get_deployment_handle(NAME, NAME)
        try:
            response = handle.broadcast(method)
            answers = await response.results_async(timeout_s=BROADCAST_SECONDS, return_exceptions=True)
        except Exception as error:  # noqa: BLE001 - a replica that is gone must not fail the others' request
            logger.warning("the replicas could not be asked for %s: %s", method, type(error).__name__)
            return []
        return [answer for answer in answers if not isinstance(answer, BaseException)]

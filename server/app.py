"""Makes the app."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from server import error_replies
from server.config import Config, load_config
from server.documents.openapi import document
from server.engines.loading import Progress, load_engines
from server.engines.port import EnginePort
from server.middleware import RequestMiddleware
from server.replies.steering_fields import STEERING_HEADER
from server.routes.routers import include_routes
from server.service import Service
from server.telemetry.logs import setup_logging
from server.telemetry.request_record import REQUEST_ID_HEADER
from server.telemetry.traces import NoTracing, OpenTelemetryTracing, Tracing
from steering.device.cores import available_cores


class App(FastAPI):
    """A FastAPI app whose OpenAPI document is the one in `server.documents`.

    The framework cannot write it: it does not see the bodies, which `read_body` reads.
    """

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return document(self)


def create_app() -> FastAPI:
    """The app as the environment configures it: `uvicorn --factory server.app:create_app --workers 2`.

    The settings are the variables `TRIMTAB_*` and the TOML file that `TRIMTAB_CONFIG` names. Where WEB_CONCURRENCY, by
    which uvicorn knows the number of its workers, is set, each takes its share of the cores. Raises what `load_config`
    and `build_app` raise.
    """
    file = os.environ.get("TRIMTAB_CONFIG")
    config = load_config(Path(file) if file else None)
    setup_logging(level=config.log_level, as_json=config.log_json)
    workers = os.environ.get("WEB_CONCURRENCY", "")
    if config.threads is None and workers.isdigit():
        config = config.model_copy(update={"threads": max(1, available_cores() // max(1, int(workers)))})
    return build_app(config)


def build_app(
    config: Config,
    *,
    engines: Mapping[str, EnginePort] | None = None,
    progress: Progress | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The app that serves `engines`; by default the bases and adapters that `config` names are loaded now.

    `app.state.service` is its `Service`. With an adapter store, the app loads the adapters when it is
    started, before it takes requests. Raises what `load_engines` raises, and ImportError where `config.traces` is
    set and the extra `otel` is not installed.
    """
    if tracing is None:
        tracing = OpenTelemetryTracing() if config.traces else NoTracing()
    service = Service(config, load_engines(config, progress) if engines is None else engines)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await service.start()
            yield
        finally:
            await service.close()
            tracing.close()

    app = App(title="Trimtab", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    error_replies.install(app)
    if config.cors_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origin,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "x-api-key", REQUEST_ID_HEADER],
            expose_headers=[REQUEST_ID_HEADER, STEERING_HEADER],
        )
    # Added last, so that it is around the others: refusals for CORS are logged too.
    app.add_middleware(RequestMiddleware, service=service, tracing=tracing)
    include_routes(app)
    return app

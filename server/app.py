"""Makes the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from server import errors
from server.auth import require_key
from server.config import Config
from server.engines.loading import Progress, load_engines
from server.engines.port import EnginePort
from server.middleware import RequestMiddleware
from server.replies.streaming import ClientGoneError
from server.replies.wire import STEERING_HEADER
from server.routes import adapters, chat, completions, models, operations, tokens
from server.service import Service
from server.telemetry.request_record import REQUEST_ID_HEADER
from server.telemetry.traces import NoTracing, OpenTelemetryTracing, Tracing


def build_app(
    config: Config,
    *,
    engines: Mapping[str, EnginePort] | None = None,
    progress: Progress | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The app that serves `engines`, by default those that `config` names, loaded now.

    Its `state.service` is a `Service`. Raises what `load_engines` raises, and ImportError where the settings ask for
    traces and the extra `otel` is not installed.
    """
    if tracing is None:
        tracing = OpenTelemetryTracing() if config.traces else NoTracing()
    service = Service(config, load_engines(config, progress) if engines is None else engines)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.close()
            tracing.close()

    app = FastAPI(title="Trimtab", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    errors.install(app)
    app.add_exception_handler(ClientGoneError, _on_client_gone)
    if config.cors_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origin,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", REQUEST_ID_HEADER],
            expose_headers=[REQUEST_ID_HEADER, STEERING_HEADER],
        )
    # Outside the others: what is added last.
    app.add_middleware(RequestMiddleware, service=service, tracing=tracing)
    include_routes(app)
    return app


def include_routes(app: FastAPI) -> None:
    """Every route, those that need a key behind it."""
    app.include_router(operations.public)
    guarded = [Depends(require_key)]
    for router in (
        *(operations.private, completions.router, chat.router, models.router, tokens.router),
        *(adapters.router, adapters.admin),
    ):
        app.include_router(router, dependencies=guarded)


async def _on_client_gone(request: Request, error: Exception) -> Response:
    # Nobody reads it; the status is the customary one for the access log.
    return Response(status_code=499)

"""Makes the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from server import errors
from server.auth import require_key
from server.config import Config
from server.engine_port import EnginePort
from server.loading import Progress, load_engines
from server.routes import chat, completions, models, operations, tokens
from server.service import Service
from server.streaming import ClientGoneError


def build_app(
    config: Config,
    *,
    engines: Mapping[str, EnginePort] | None = None,
    progress: Progress | None = None,
) -> FastAPI:
    """The app that serves `engines`, by default those that `config` names, loaded now.

    Its `state.service` is a `Service`. Raises what `load_engines` raises.
    """
    service = Service(config, load_engines(config, progress) if engines is None else engines)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(title="Trimtab", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    errors.install(app)
    app.add_exception_handler(ClientGoneError, _on_client_gone)
    app.include_router(operations.public)
    guarded = [Depends(require_key)]
    for router in (operations.private, completions.router, chat.router, models.router, tokens.router):
        app.include_router(router, dependencies=guarded)
    return app


async def _on_client_gone(request: Request, error: Exception) -> Response:
    # Nobody reads it; the status is the customary one for the access log.
    return Response(status_code=499)

"""`GET /health`, `/ready`, `/version`, `/metrics` and `/openapi.json`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from server.errors import unavailable
from server.names import package_version
from server.protocol.operations import Status, Version
from server.service import service_of

public = APIRouter()
private = APIRouter()


@public.get("/health")
async def health(request: Request) -> Status:
    """Says whether the server is alive: the thread of every engine runs."""
    failure = service_of(request).failure
    if failure is not None:
        raise unavailable(failure)
    return Status(status="alive")


@public.get("/ready")
async def ready(request: Request) -> Status:
    """Says whether the server is ready: alive, started and not draining."""
    await health(request)
    service_of(request).require_open()
    return Status(status="ready")


@public.get("/version")
async def read_version() -> Version:
    """Gives the version of the package `trimtab`."""
    return Version(version=package_version())


@private.get("/metrics")
async def metrics(request: Request) -> Response:
    """Gives the metrics, as Prometheus reads them."""
    # As a header, because `media_type` would add a charset to a content type that has one already.
    return Response(await service_of(request).metrics_text(), headers={"content-type": CONTENT_TYPE_LATEST})


@private.get("/openapi.json")
async def openapi(request: Request) -> dict[str, Any]:
    """Gives the OpenAPI document of this server."""
    content: dict[str, Any] = request.app.openapi()
    return content

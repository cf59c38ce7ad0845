"""Every route of the app, and which of them need a key."""

from __future__ import annotations

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from server.auth import require_key
from server.routes import (
    adapters,
    chat,
    completions,
    lora,
    maps,
    messages,
    models,
    operations,
    responses,
    tokens,
)

_PUBLIC = (operations.public,)
_GUARDED = (
    operations.private,
    completions.router,
    chat.router,
    messages.router,
    responses.router,
    models.router,
    maps.router,
    tokens.router,
    adapters.router,
    adapters.admin,
    lora.admin,
)


def include_routes(app: FastAPI) -> None:
    """Adds every route to `app`, the guarded ones behind `require_key`."""
    for router in _PUBLIC:
        app.include_router(router)
    for router in _GUARDED:
        app.include_router(router, dependencies=[Depends(require_key)])


def allowed_methods(path: str) -> str:
    """The methods of the routes that match `path`, as the header `Allow` lists them; "" where none matches."""
    methods: set[str] = set()
    for router in (*_PUBLIC, *_GUARDED):
        for route in router.routes:
            if isinstance(route, APIRoute) and route.path_regex.match(path):
                methods |= route.methods or set()
    return ", ".join(sorted(methods))

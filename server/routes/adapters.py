"""`/v1/adapters`: what is loaded; loading, replacing and unloading."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from server.auth import require_admin
from server.engines.changes import adapter_versions
from server.intake.body import read_body
from server.protocol.adapters import (
    AdapterCard,
    AdapterList,
    LoadAdapterRequest,
    LoadedAdapter,
    UnloadedAdapter,
)
from server.service import service_of

router = APIRouter()
admin = APIRouter(dependencies=[Depends(require_admin)])


@router.get("/v1/adapters")
async def list_adapters(request: Request) -> AdapterList:
    """Every version of an adapter that is in memory."""
    return AdapterList(
        data=[
            AdapterCard(
                name=adapter.name,
                kind=adapter.kind,
                version=adapter.version,
                alpha=adapter.alpha,
                bridge=adapter.bridge,
                bases=bases,
                readers=readers,
                status="loaded" if is_current else "unloading",
            )
            for adapter, bases, readers, is_current in adapter_versions(service_of(request).workers)
        ]
    )


@admin.post("/v1/adapters")
async def load_adapter(request: Request) -> LoadedAdapter:
    """Loads a folder as an adapter of every base; a load that fails changes nothing."""
    service = service_of(request)
    body = await read_body(request, LoadAdapterRequest, service.config.max_body_bytes)
    service.require_open()
    adapter, replaced = await service.adapters.load(body.name, body.path, replace=bool(body.replace))
    return LoadedAdapter(name=adapter.name, version=adapter.version, replaced=replaced)


@admin.delete("/v1/adapters/{name}")
async def unload_adapter(request: Request, name: str) -> UnloadedAdapter:
    """Refuses an adapter to new requests, and waits up to half a minute for those that it steers."""
    service = service_of(request)
    service.require_open()
    return UnloadedAdapter(name=name, readers=await service.adapters.unload(name))

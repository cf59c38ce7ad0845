"""`/v1/adapters`: lists, loads, replaces and unloads adapters."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from server.auth import require_admin
from server.engines.adapter_versions import adapter_versions
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
    """Lists every version of an adapter in memory."""
    return AdapterList(
        data=[
            AdapterCard(
                name=version.adapter.name,
                kind=version.adapter.kind,
                version=version.adapter.version,
                alpha=version.adapter.alpha,
                bridge=version.adapter.bridge,
                bases=version.bases,
                readers=version.readers,
                status="loaded" if version.is_current else "unloading",
            )
            for version in adapter_versions(service_of(request).workers)
        ]
    )


@admin.post("/v1/adapters")
async def load_adapter(request: Request) -> LoadedAdapter:
    """Loads a folder as an adapter of every base; a load that fails changes nothing."""
    service = service_of(request)
    body = await read_body(request, LoadAdapterRequest, service.config)
    service.require_open()
    adapter, replaced = await service.adapters.load(body.name, body.path, replace=bool(body.replace))
    return LoadedAdapter(name=adapter.name, version=adapter.version, replaced=replaced)


@admin.delete("/v1/adapters/{name}")
async def unload_adapter(request: Request, name: str) -> UnloadedAdapter:
    """Unloads an adapter: new requests cannot name it; the reply waits up to half a minute for running ones."""
    service = service_of(request)
    service.require_open()
    return UnloadedAdapter(name=name, readers=await service.adapters.unload(name))

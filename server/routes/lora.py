"""`POST /v1/load_lora_adapter` and `/v1/unload_lora_adapter`: adapters under the names of vLLM's routes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, Depends, Request

from server.auth import require_admin
from server.errors import ApiError
from server.intake.body import read_body
from server.protocol.adapters import (
    LoadedAdapter,
    LoadLoraAdapterRequest,
    UnloadedAdapter,
    UnloadLoraAdapterRequest,
)
from server.service import service_of

admin = APIRouter(dependencies=[Depends(require_admin)])


@admin.post("/v1/load_lora_adapter")
async def load_lora_adapter(request: Request) -> LoadedAdapter:
    """Loads a folder as an adapter of every base, like `POST /v1/adapters`. An adapter steers; it is no LoRA."""
    service = service_of(request)
    body = await read_body(request, LoadLoraAdapterRequest, service.config)
    service.require_open()
    with _in_the_routes_words():
        adapter, replaced = await service.adapters.load(
            body.lora_name, body.lora_path, replace=bool(body.load_inplace)
        )
    return LoadedAdapter(name=adapter.name, version=adapter.version, replaced=replaced)


@admin.post("/v1/unload_lora_adapter")
async def unload_lora_adapter(request: Request) -> UnloadedAdapter:
    """Unloads an adapter, like `DELETE /v1/adapters/{name}`."""
    service = service_of(request)
    body = await read_body(request, UnloadLoraAdapterRequest, service.config)
    service.require_open()
    with _in_the_routes_words():
        readers = await service.adapters.unload(body.lora_name)
    return UnloadedAdapter(name=body.lora_name, readers=readers)


@contextmanager
def _in_the_routes_words() -> Iterator[None]:
    """Errors name `lora_name` and `lora_path`, not `name` and `path`."""
    try:
        yield
    except ApiError as error:
        if error.param in ("name", "path"):
            error.param = f"lora_{error.param}"
        raise

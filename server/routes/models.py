"""`GET /v1/models`: the names that a request's `model` may have."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fastapi import APIRouter, Request

from mapping_cache import VocabularyMap
from server.errors import ApiError, echo
from server.protocol.models import ModelCard, ModelList, ModelSteering
from server.routes.maps import map_quality
from server.served_base import ServedBase
from server.service import Service, service_of
from steering.adapters import Adapter

router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request) -> ModelList:
    """Lists every base, and every pair of base and adapter; of replicas, the pairs that all of them serve."""
    service = service_of(request)
    return ModelList(data=list(_cards(service, await service.adapters.offered())))


@router.get("/v1/models/{name}")
async def get_model(request: Request, name: str) -> ModelCard:
    """Describes one base, or one pair of base and adapter."""
    service = service_of(request)
    for card in _cards(service, await service.adapters.offered()):
        if card.id == name:
            return card
    raise ApiError(404, f"The model {echo(repr(name))} is not served here.", param="model")


def _cards(service: Service, offered: Collection[str] | None) -> Iterator[ModelCard]:
    for base in service.bases.values():
        yield _card(service, base, None)
        for pair in base.adapter_maps():
            if offered is None or pair[0].name in offered:
                yield _card(service, base, pair)


def _card(service: Service, base: ServedBase, pair: tuple[Adapter, VocabularyMap] | None) -> ModelCard:
    return ModelCard(
        id=base.name if pair is None else f"{base.name}:{pair[0].name}",
        created=service.created,
        root=base.name,
        parent=None if pair is None else base.name,
        max_model_len=base.max_model_len,
        steering=None if pair is None else _steering(*pair),
    )


def _steering(adapter: Adapter, vocabulary_map: VocabularyMap) -> ModelSteering:
    return ModelSteering(
        adapter=adapter.name,
        kind=adapter.kind,
        version=adapter.version,
        alpha=adapter.alpha,
        bridge=adapter.bridge,
        map=map_quality(vocabulary_map),
    )

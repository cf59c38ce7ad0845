"""`GET /v1/models` and `/v1/maps`: what is served and how well it carries over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request

from mapping_cache import VocabularyMap, map_report
from server.errors import ApiError, echo
from server.protocol.models import (
    MapCard,
    MapList,
    MapQuality,
    ModelCard,
    ModelList,
    ModelSteering,
)
from server.routes.common import service_of
from server.service import ServedBase, Service
from steering.adapters import Adapter

router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request) -> ModelList:
    """Every base, and every pair of base and adapter."""
    return ModelList(data=list(_cards(service_of(request))))


@router.get("/v1/models/{name}")
async def get_model(request: Request, name: str) -> ModelCard:
    """One of them."""
    for card in _cards(service_of(request)):
        if card.id == name:
            return card
    raise ApiError(404, f"The model {echo(repr(name))} is not served here.", param="model")


@router.get("/v1/maps")
async def list_maps(request: Request) -> MapList:
    """The vocabulary map of every pair."""
    service = service_of(request)
    return MapList(
        data=[
            _map_card(base, name)
            for base in service.bases.values()
            for name in sorted(base.engine.adapters())
        ]
    )


@router.get("/v1/maps/{base_name}/{adapter_name}")
async def get_map(request: Request, base_name: str, adapter_name: str) -> MapCard:
    """One map, with its full report."""
    service = service_of(request)
    base = service.bases.get(base_name)
    adapter = base.engine.adapters().get(adapter_name) if base is not None else None
    if base is None or adapter is None:
        raise ApiError(404, f"There is no map from {echo(repr(base_name))} to {echo(repr(adapter_name))}.")
    steering = adapter.models[0]

    def report() -> dict[str, Any]:
        return map_report(
            base.engine.vocabulary_map(adapter_name),
            base.engine.base.tokenizer,
            steering.tokenizer,
            base_vocabulary=base.engine.base.vocabulary,
            steering_vocabulary=steering.vocabulary,
        )

    card = _map_card(base, adapter_name)
    return card.model_copy(update={"report": await base.off_loop(report)})


def _quality(vocabulary_map: VocabularyMap) -> MapQuality:
    counts = vocabulary_map.counts()
    size = max(1, len(vocabulary_map))
    return MapQuality(
        identity=vocabulary_map.is_identity, counts=counts, matched_share=1 - counts["unmatched"] / size
    )


def _map_card(base: ServedBase, name: str) -> MapCard:
    vocabulary_map = base.engine.vocabulary_map(name)
    return MapCard(
        base=base.name, adapter=name, fingerprint=vocabulary_map.fingerprint, quality=_quality(vocabulary_map)
    )


def _cards(service: Service) -> Iterator[ModelCard]:
    for base in service.bases.values():
        yield _card(service, base, None)
        for adapter in base.engine.adapters().values():
            yield _card(service, base, adapter)


def _card(service: Service, base: ServedBase, adapter: Adapter | None) -> ModelCard:
    return ModelCard(
        id=base.name if adapter is None else f"{base.name}:{adapter.name}",
        created=service.created,
        root=base.name,
        parent=None if adapter is None else base.name,
        max_model_len=base.engine.max_model_len,
        steering=None if adapter is None else _steering(base, adapter),
    )


def _steering(base: ServedBase, adapter: Adapter) -> ModelSteering:
    return ModelSteering(
        adapter=adapter.name,
        kind=adapter.kind,
        version=adapter.version,
        alpha=adapter.alpha,
        bridge=adapter.bridge,
        map=_quality(base.engine.vocabulary_map(adapter.name)),
    )

"""`GET /v1/models` and `/v1/maps`: what is served and how well it carries over."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Request

from mapping_cache import VocabularyMap
from server.errors import ApiError, echo
from server.protocol.models import (
    MapCard,
    MapList,
    MapQuality,
    ModelCard,
    ModelList,
    ModelSteering,
)
from server.served_base import ServedBase
from server.service import Service, service_of
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
            _map_card(base, adapter.name, vocabulary_map)
            for base in service.bases.values()
            for adapter, vocabulary_map in sorted(_pairs(base), key=lambda pair: pair[0].name)
        ]
    )


@router.get("/v1/maps/{base_name}/{adapter_name}")
async def get_map(request: Request, base_name: str, adapter_name: str) -> MapCard:
    """One map, with its full report."""
    service = service_of(request)
    base = service.bases.get(base_name)
    pair = None if base is None else _pair(base, adapter_name)
    if base is None or pair is None:
        raise ApiError(404, f"There is no map from {echo(repr(base_name))} to {echo(repr(adapter_name))}.")
    adapter, vocabulary_map = pair
    card = _map_card(base, adapter_name, vocabulary_map)
    return card.model_copy(update={"report": await base.map_report(adapter, vocabulary_map)})


def _pair(base: ServedBase, name: str) -> tuple[Adapter, VocabularyMap] | None:
    """An adapter and its own map; None where it is not loaded, or not any more.

    The engine's thread may unload or replace it at any moment.
    """
    while (adapter := base.engine.adapters().get(name)) is not None:
        try:
            vocabulary_map = base.engine.vocabulary_map(name)
        except KeyError:
            return None
        if base.engine.adapters().get(name) is adapter:
            return adapter, vocabulary_map
    return None


def _pairs(base: ServedBase) -> Iterator[tuple[Adapter, VocabularyMap]]:
    for name in base.engine.adapters():
        pair = _pair(base, name)
        if pair is not None:
            yield pair


def _quality(vocabulary_map: VocabularyMap) -> MapQuality:
    counts = vocabulary_map.counts()
    size = max(1, len(vocabulary_map))
    return MapQuality(
        identity=vocabulary_map.is_identity, counts=counts, matched_share=1 - counts["unmatched"] / size
    )


def _map_card(base: ServedBase, name: str, vocabulary_map: VocabularyMap) -> MapCard:
    return MapCard(
        base=base.name, adapter=name, fingerprint=vocabulary_map.fingerprint, quality=_quality(vocabulary_map)
    )


def _cards(service: Service) -> Iterator[ModelCard]:
    for base in service.bases.values():
        yield _card(service, base, None)
        for pair in _pairs(base):
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
        map=_quality(vocabulary_map),
    )

"""`GET /v1/maps`: the vocabulary map of each pair of base and adapter."""

from __future__ import annotations

from fastapi import APIRouter, Request

from mapping_cache import VocabularyMap
from server.errors import ApiError, echo
from server.protocol.models import MapCard, MapList, MapQuality
from server.served_base import ServedBase
from server.service import service_of

router = APIRouter()


@router.get("/v1/maps")
async def list_maps(request: Request) -> MapList:
    """Lists the vocabulary map of every pair of base and adapter."""
    return MapList(
        data=[
            _card(base, adapter.name, vocabulary_map)
            for base in service_of(request).bases.values()
            for adapter, vocabulary_map in sorted(base.adapter_maps(), key=lambda pair: pair[0].name)
        ]
    )


@router.get("/v1/maps/{base_name}/{adapter_name}")
async def get_map(request: Request, base_name: str, adapter_name: str) -> MapCard:
    """Describes one vocabulary map, with its full report."""
    base = service_of(request).bases.get(base_name)
    pair = None if base is None else base.adapter_map(adapter_name)
    if base is None or pair is None:
        raise ApiError(404, f"There is no map from {echo(repr(base_name))} to {echo(repr(adapter_name))}.")
    adapter, vocabulary_map = pair
    card = _card(base, adapter_name, vocabulary_map)
    return card.model_copy(update={"report": await base.map_report(adapter, vocabulary_map)})


def map_quality(vocabulary_map: VocabularyMap) -> MapQuality:
    """The share of the base's vocabulary that the map reaches, and its matches by kind."""
    counts = vocabulary_map.counts()
    size = max(1, len(vocabulary_map))
    return MapQuality(
        identity=vocabulary_map.is_identity, counts=counts, matched_share=1 - counts["unmatched"] / size
    )


def _card(base: ServedBase, name: str, vocabulary_map: VocabularyMap) -> MapCard:
    return MapCard(
        base=base.name,
        adapter=name,
        fingerprint=vocabulary_map.fingerprint,
        quality=map_quality(vocabulary_map),
    )

"""`docs/api.md` and the OpenAPI document agree with the code and are complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from server.documents.api_document import page
from server.documents.openapi import ROUTES, document
from server.documents.schema_text import bounds, type_text
from server.routes.routers import include_routes

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    app = FastAPI()
    include_routes(app)
    return document(app)


def test_the_page_is_up_to_date() -> None:
    stored = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    assert stored == page(), "run `make docs`"


def test_every_route_is_described_and_every_description_has_a_route(made: dict[str, Any]) -> None:
    found = {(method.upper(), path) for path, methods in made["paths"].items() for method in methods}
    assert found == set(ROUTES)


def test_every_reference_has_its_schema(made: dict[str, Any]) -> None:
    schemas = made["components"]["schemas"]
    references = {part.partition('"')[0] for part in json.dumps(made).split('"$ref": "')[1:]}
    assert {reference.rpartition("/")[2] for reference in references} <= set(schemas)
    assert all(reference.startswith("#/components/schemas/") for reference in references)


def test_the_server_serves_the_document(client: TestClient, made: dict[str, Any]) -> None:
    assert client.get("/openapi.json").json() == made


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer"}, "integer"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text"),
        (
            {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
            "list of list of integer",
        ),
        ({"$ref": "#/components/schemas/Tool"}, "[`Tool`](#tool)"),
        ({"enum": ["a", "b"]}, '`"a"`, `"b"`'),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number"),
        ({}, "anything"),
    ],
)
def test_types_in_words(schema: dict[str, Any], text: str) -> None:
    assert type_text(schema) == text


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"minimum": 0, "maximum": 2**31}, "≥ 0, ≤ 2^31"),
        ({"exclusiveMinimum": 0}, "> 0"),
        ({"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]}, "at least 1 character"),
        (
            {"maxItems": 16, "items": {"type": "string", "maxLength": 9}},
            "0 to 16 items; each 0 to 9 characters",
        ),
        ({}, ""),
    ],
)
def test_bounds_in_words(schema: dict[str, Any], text: str) -> None:
    assert bounds(schema) == text

"""The section on routes: each with its parameters, its request, its replies and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.documents.markdown import table
from server.documents.schema_text import type_text
from server.documents.section_objects import fields_table


def routes_section(made: dict[str, Any]) -> Iterator[str]:
    """The lines of the section, from the OpenAPI document."""
    operations = [
        (method.upper(), path, operation)
        for path, methods in made["paths"].items()
        for method, operation in methods.items()
    ]
    yield "## Routes\n"
    yield from table(
        ("route", "summary", "key"),
        (
            (f"[`{method} {path}`](#{_anchor(method, path)})", operation["summary"], _key(operation))
            for method, path, operation in operations
        ),
    )
    for method, path, operation in operations:
        yield f"### `{method} {path}`\n"
        yield operation["description"] + "\n"
        yield from _parameters(operation)
        yield from _request(made, operation)
        yield from _replies(made, operation)


def _anchor(method: str, path: str) -> str:
    """The anchor that GitHub gives the route's heading."""
    kept = "".join(letter for letter in f"{method} {path}".lower() if letter.isalnum() or letter in " _-")
    return kept.replace(" ", "-")


def _key(operation: dict[str, Any]) -> str:
    """The key that a route needs: "any", "admin" or "none"."""
    names = [name for choice in operation.get("security", ()) for name in choice]
    return {"key": "any", "adminKey": "admin"}[names[0]] if names else "none"


def _parameters(operation: dict[str, Any]) -> Iterator[str]:
    rows = [
        (f"`{p['name']}`", p["in"], type_text(p["schema"]), p.get("description", ""))
        for p in operation.get("parameters", ())
    ]
    if rows:
        yield from table(("parameter", "in", "type", "meaning"), rows)


def _request(made: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    body = operation.get("requestBody")
    if body is None:
        return
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schema = made["components"]["schemas"][name]
    yield f"Request: {schema['description']}\n"
    yield from fields_table(name, schema)


def _replies(made: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    for code, reply in operation["responses"].items():
        content = reply.get("content", {})
        reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        name = reference.rpartition("/")[2]
        if int(code) >= 400:
            continue
        if name:
            schema = made["components"]["schemas"][name]
            yield f"Reply {code}, `{name}`: {schema['description']}\n"
            yield from fields_table(name, schema, request=False)
        elif content:
            yield f"Reply {code}: {', '.join(f'`{media}`' for media in content)}.\n"
        stream = content.get("text/event-stream")
        if stream is not None:
            yield stream["schema"]["description"] + "\n"
    errors = [code for code in operation["responses"] if int(code) >= 400]
    yield f"[Errors](#errors): {', '.join(errors)}.\n"

"""The section on objects: the fields of the JSON objects within requests and replies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.documents.markdown import table
from server.documents.schema_text import bounds, default, type_text


def objects_section(made: dict[str, Any]) -> Iterator[str]:
    """The lines of the section, from the OpenAPI document.

    An object that is a whole request or reply stands with its route instead.
    """
    whole = {
        content["schema"].get("$ref", "").rpartition("/")[2]
        for methods in made["paths"].values()
        for operation in methods.values()
        for reply in (operation.get("requestBody", {}), *operation["responses"].values())
        for content in reply.get("content", {}).values()
    } - {"ErrorReply"}
    requests = _reachable(
        made,
        {
            content["schema"]["$ref"].rpartition("/")[2]
            for methods in made["paths"].values()
            for operation in methods.values()
            for content in operation.get("requestBody", {}).get("content", {}).values()
        },
    )
    yield "## Objects\n"
    for name, schema in made["components"]["schemas"].items():
        if name in whole:
            continue
        yield f"### `{name}`\n"
        yield schema.get("description", "") + "\n"
        if "properties" in schema:
            yield from fields_table(name, schema, request=name in requests)


def _reachable(made: dict[str, Any], names: set[str]) -> set[str]:
    """The schemas called `names` and all schemas within them."""
    found: set[str] = set()
    while names:
        name = names.pop()
        found.add(name)
        names |= {part for part in _references(made["components"]["schemas"][name]) if part not in found}
    return found


def _references(schema: Any) -> Iterator[str]:
    """The names of the schemas to which a schema refers."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rpartition("/")[2]
        for inner in schema.values():
            yield from _references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)


def fields_table(name: str, schema: dict[str, Any], *, request: bool = True) -> Iterator[str]:
    """A table of an object's fields, for a request with bounds and defaults.

    Raises ValueError for a field without a description.
    """
    rows = []
    required = schema.get("required", ())
    for field, inner in schema.get("properties", {}).items():
        meaning = inner.get("description") or ("always this" if "const" in inner else None)
        if meaning is None:
            raise ValueError(f"{name}.{field} has no description")
        row = [f"`{field}`", type_text(inner, nullable=not request)]
        if request:
            meaning, _, usual = meaning.partition(". Default: ")
            row += [bounds(inner), "**needed**" if field in required else usual or default(inner)]
        rows.append([*row, meaning])
    columns = ("field", "type", "bounds", "default", "meaning") if request else ("field", "type", "meaning")
    yield from table(columns, rows)

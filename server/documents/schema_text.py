"""JSON schemas in words, for the page of the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_WORDS = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "null": "null",
}


def type_text(schema: dict[str, Any], *, nullable: bool = False) -> str:
    """The type of a value; null is mentioned only if `nullable`."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[`{name}`](#{name.lower()})"
    if "allOf" in schema and len(schema["allOf"]) == 1:
        return type_text(schema["allOf"][0])
    if "anyOf" in schema:
        kinds = [inner for inner in schema["anyOf"] if nullable or inner.get("type") != "null"]
        return " or ".join(dict.fromkeys(type_text(kind, nullable=nullable) for kind in kinds))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {type_text(schema.get('items', {}))}"
    if kind == "object":
        values = schema.get("additionalProperties") or next(
            iter(schema.get("patternProperties", {}).values()), None
        )
        return f"object of {type_text(values)}" if isinstance(values, dict) else "object"
    return _WORDS.get(str(kind), "anything")


def bounds(schema: dict[str, Any]) -> str:
    """The limits of a value; for a union, those of each member."""
    return "; ".join(dict.fromkeys(_bounds(schema)))


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    for inner in schema.get("anyOf", ()):
        yield from _bounds(inner)
    low = _sign(schema, "minimum", "≥ ") or _sign(schema, "exclusiveMinimum", "> ")
    high = _sign(schema, "maximum", "≤ ") or _sign(schema, "exclusiveMaximum", "< ")
    if low or high:
        yield ", ".join(part for part in (low, high) if part)
    for least, most, unit in (
        ("minLength", "maxLength", "characters"),
        ("minItems", "maxItems", "items"),
        ("minProperties", "maxProperties", "keys"),
    ):
        if most in schema:
            yield f"{schema.get(least, 0)} to {schema[most]:,} {unit}"
        elif schema.get(least):
            yield f"at least {schema[least]} {unit.removesuffix('s') if schema[least] == 1 else unit}"
    if "pattern" in schema:
        yield f"`{schema['pattern']}`"
    for inner in schema.get("patternProperties", {}).values():
        yield from _bounds(inner)
    inner = schema.get("items", {})
    if inner.get("type") in ("string", "integer", "number"):
        yield from (f"each {text}" for text in _bounds(inner))


def _sign(schema: dict[str, Any], name: str, sign: str) -> str:
    if name not in schema:
        return ""
    value = schema[name]
    powers = {2**31: "2^31", 2**63 - 1: "2^63 - 1", 2**63: "2^63"}
    return sign + powers.get(value, f"{value:g}")


def default(schema: dict[str, Any]) -> str:
    """The default as JSON; "" if there is none or it is null."""
    value = schema.get("default")
    return "" if value is None else f"`{json.dumps(value)}`"

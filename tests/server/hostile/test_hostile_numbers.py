"""Every number in a request, with values that are out of bounds or no numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from server.protocol.chat import ChatRequest
from server.protocol.completions import CompletionRequest
from steering.specs import SteeringSpec
from tests.server.hostile.attack import BASICS, CHAT, COMPLETIONS, Attack

# Numbers in JSON, and values that resemble them. Each field gets all of them and the values at its own bounds.
LITERALS = (
    *("0", "-1", "9223372036854775808", "1e999", "NaN", "Infinity", "-Infinity", "1.5", "1.0", "-0.0"),
    *(
        "5e-324",
        '"1"',
        '"NaN"',
        "true",
        "false",
        "[]",
        "[1]",
        "{}",
        "1" * 400,
        "1" * 5000,
        "0x10",
        "01",
        "+1",
        "1_0",
    ),
)


def number_fields(model: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The model's fields that are numbers, each with its JSON schema."""
    for name, field in TypeAdapter(model).json_schema()["properties"].items():
        for choice in field.get("anyOf", [field]):
            if choice.get("type") in ("integer", "number") and "const" not in choice:
                yield name, {**choice, "or boolean": {"type": "boolean"} in field.get("anyOf", [])}


def bounds(schema: dict[str, Any]) -> Iterator[str]:
    """The values at and just past each bound."""
    for name, way in (("minimum", -1), ("exclusiveMinimum", -1), ("maximum", 1), ("exclusiveMaximum", 1)):
        if name in schema:
            bound = schema[name]
            whole = schema["type"] == "integer"
            yield json.dumps(bound)
            yield json.dumps(bound + way if whole else math.nextafter(bound, way * math.inf))


def is_valid(literal: str, schema: dict[str, Any], *, whole_floats: bool = True) -> bool:
    """Whether the field may have this value, by its schema alone. `whole_floats`: 1.0 is an integer."""
    try:
        value = json.loads(literal)
    except ValueError:
        return False
    if isinstance(value, bool) and schema["or boolean"]:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if schema["type"] == "integer" and not (isinstance(value, int) or (whole_floats and value.is_integer())):
        return False
    return bool(
        value >= schema.get("minimum", -math.inf)
        and value > schema.get("exclusiveMinimum", -math.inf)
        and value <= schema.get("maximum", math.inf)
        and value < schema.get("exclusiveMaximum", math.inf)
    )


FIELDS = [
    (path, name, schema)
    for path, model in ((COMPLETIONS, CompletionRequest), (CHAT, ChatRequest))
    for name, schema in number_fields(model)
]


@pytest.mark.parametrize(("path", "name", "schema"), FIELDS, ids=[f"{p}-{n}" for p, n, _ in FIELDS])
def test_a_number_out_of_place(attack: Attack, path: str, name: str, schema: dict[str, Any]) -> None:
    assert {"minimum", "exclusiveMinimum"} & set(schema), f"{name} has no lower bound"
    assert "maximum" in schema, f"{name} has no upper bound"
    rest = json.dumps({key: value for key, value in BASICS[path].items() if key != name})
    for literal in dict.fromkeys((*LITERALS, *bounds(schema))):
        reply = attack.send(path, content=f'{rest[:-1]}, "{name}": {literal}}}')
        if is_valid(literal, schema):
            # A valid value may still contradict another field.
            assert reply.status_code in (200, 400, 429), literal
        else:
            assert reply.status_code == 400, (literal[:40], reply.text)
            assert reply.json()["error"]["param"] == (name if is_json(literal) else None), literal[:40]


def is_json(literal: str) -> bool:
    """Whether the literal is JSON, as Python reads it: with NaN and infinities, and not too many digits."""
    try:
        json.loads(literal)
    except ValueError:
        return False
    return True


STEERING = list(number_fields(SteeringSpec))


@pytest.mark.parametrize(("name", "schema"), STEERING, ids=[name for name, _ in STEERING])
def test_steering_by_a_number_out_of_place(attack: Attack, name: str, schema: dict[str, Any]) -> None:
    for literal in dict.fromkeys((*LITERALS, *bounds(schema), "1e6", "-1e6")):
        steering = f'{{"adapter": "steer", "{name}": {literal}}}'
        content = f'{json.dumps(BASICS[COMPLETIONS])[:-1]}, "steering": {steering}}}'
        reply = attack.send(COMPLETIONS, content=content)
        if is_valid(literal, schema, whole_floats=False):
            assert reply.status_code == 200, (literal, reply.text)
        else:
            assert reply.status_code == 400, literal
            assert reply.json()["error"]["param"] == ("steering" if is_json(literal) else None), literal

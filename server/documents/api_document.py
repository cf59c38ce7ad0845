"""Writes `docs/api.md` from the code: `python -m server.documents.api_document [FILE]`.

Routes and fields come from the OpenAPI document, which comes from the models that check requests; metrics from the
registry, settings from `Config`, and the command line from the commands themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import ByteSize
from pydantic_core import PydanticUndefined
from typer.main import get_command

from server.config import Config
from server.documents.openapi import ERRORS, HEADERS, document
from server.documents.schema_text import bounds, default, type_text
from server.errors import error_type
from server.routes.routers import include_routes
from server.telemetry.metrics import Metrics

HEAD = """# The HTTP interface and the command line

*Made from the code by `make docs`; changes made by hand are lost.* As an OpenAPI document: `GET /openapi.json`.

Requests and replies are JSON. In a request `null` is the same as leaving a field out; a field that a route does not
have is a 400 that names it; numbers in strings, NaN and infinities are refused; of a key given twice the last counts.
A special token that stands in a text is text: only the chat template, or a client that sends token ids, makes real
ones.

**Choosing an adapter.** `"model": "BASE"` is the base, unsteered; `"model": "BASE:ADAPTER"` is steered at the
adapter's own alpha. Or name adapters in the field `steering`; several add up. Naming one in both places is a 400. What
steered a reply stands in its field `steering`, with the version, and in the header `x-trimtab-steering`.

**Streams.** With `"stream": true` a reply is server-sent events: `data: OBJECT` each, at last `data: [DONE]`. An error
amid a stream is one event with an `error`, and ends it.
"""


def page() -> str:
    """The whole page."""
    app = FastAPI()
    include_routes(app)
    made = document(app)
    parts = [
        HEAD,
        *_routes(made),
        *_objects(made),
        *_errors(),
        *_headers(),
        *_metrics(),
        *_settings(),
        *_commands(),
    ]
    return "\n".join(parts).rstrip() + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A Markdown table."""
    head = list(head)
    yield _row(head)
    yield _row(["---"] * len(head))
    for row in rows:
        yield _row(row)
    yield ""


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def _routes(made: dict[str, Any]) -> Iterator[str]:
    operations = [
        (method.upper(), path, operation)
        for path, methods in made["paths"].items()
        for method, operation in methods.items()
    ]
    yield "## Routes\n"
    yield from table(
        ("route", "what", "key"),
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
    kept = "".join(letter for letter in f"{method} {path}".lower() if letter.isalnum() or letter in " _-")
    return kept.replace(" ", "-")


def _key(operation: dict[str, Any]) -> str:
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
    yield from _fields(name, schema)


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
            yield from _fields(name, schema, request=False)
        elif content:
            yield f"Reply {code}: {', '.join(f'`{media}`' for media in content)}.\n"
        stream = content.get("text/event-stream")
        if stream is not None:
            yield stream["schema"]["description"] + "\n"
    errors = [code for code in operation["responses"] if int(code) >= 400]
    yield f"[Errors](#errors): {', '.join(errors)}.\n"


def _fields(name: str, schema: dict[str, Any], *, request: bool = True) -> Iterator[str]:
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


def _objects(made: dict[str, Any]) -> Iterator[str]:
    """The objects within requests and replies; whole ones stand with their routes."""
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
            yield from _fields(name, schema, request=name in requests)


def _reachable(made: dict[str, Any], names: set[str]) -> set[str]:
    found: set[str] = set()
    while names:
        name = names.pop()
        found.add(name)
        names |= {part for part in _references(made["components"]["schemas"][name]) if part not in found}
    return found


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rpartition("/")[2]
        for inner in schema.values():
            yield from _references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)


def _errors() -> Iterator[str]:
    yield "## Errors\n"
    yield 'Every error is `{"error": {"message", "type", "param", "code"}}`. Messages name the field and its limit,'
    yield "and repeat at most 200 characters of what was sent.\n"
    yield from table(
        ("code", "type", "when"),
        ((str(code), f"`{error_type(code)}`", text) for code, text in ERRORS.items()),
    )


def _headers() -> Iterator[str]:
    yield "## Headers\n"
    yield from table(
        ("header", "on", "meaning"),
        (
            ("`authorization`", "requests", "`Bearer KEY`, where the server has keys."),
            ("`content-type`", "requests", "`application/json`; a compressed body is refused."),
            (
                "`x-request-id`",
                "requests",
                "An id of the client's own: up to 128 letters, digits and `._:-`.",
            ),
            *((f"`{name}`", "replies", text) for name, text in HEADERS.items()),
        ),
    )


def _metrics() -> Iterator[str]:
    yield "## Metrics\n"
    yield "`GET /metrics`, for Prometheus. The label `adapter` is a loaded adapter's name, `none` for unsteered"
    yield "requests, or `several`. A histogram has `_bucket`, `_sum` and `_count`.\n"
    yield from table(
        ("metric", "kind", "labels", "meaning"),
        (
            (
                f"`{metric.name}_total`" if metric.kind == "counter" else f"`{metric.name}`",
                metric.kind,
                ", ".join(f"`{label}`" for label in metric.labels),
                metric.text,
            )
            for metric in Metrics({}).described()
        ),
    )


def _settings() -> Iterator[str]:
    yield "## Settings\n"
    yield "Each is a flag of `trimtab serve`, an environment variable and a key of the TOML file that `--config` names."
    yield "Flags win, then the environment, then the file. Lists: the flag several times, the variable with commas, an"
    yield "array in the file (a table for `NAME=PATH`).\n"
    schema = Config.model_json_schema()["properties"]
    rows = []
    for name, field in Config.model_fields.items():
        if not field.description:
            raise ValueError(f"the setting {name} has no description")
        flag = f"`--{name.replace('_', '-')}`"
        rows.append(
            (
                f"`{name}`",
                flag,
                f"`TRIMTAB_{name.upper()}`",
                _limits(schema[name]),
                _setting(field),
                field.description,
            )
        )
    yield from table(("key", "flag", "variable", "bounds", "default", "meaning"), rows)


def _limits(schema: dict[str, Any]) -> str:
    # A size is a number or text with a unit; its pattern tells a person nothing.
    is_size = any("\\d" in choice.get("pattern", "") for choice in (schema, *schema.get("anyOf", ())))
    return "a size, as in `2GiB`" if is_size else bounds(schema)


def _setting(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None or value in ((), {}):
        return ""
    if isinstance(value, ByteSize):
        return value.human_readable()
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _commands() -> Iterator[str]:
    # The module of the command line imports this storey's other modules, and so comes last.
    from server.cli.app import app

    yield "## Command line\n"
    yield from _command("trimtab", get_command(app))


def _command(name: str, command: Any) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is not None:
        for part, child in inner.items():
            yield from _command(f"{name} {part}", child)
        return
    arguments = [p.name.upper() for p in command.params if not p.opts[0].startswith("-")]
    yield f"### `{' '.join([name, *arguments])}`\n"
    yield (command.help or "").strip() + "\n"
    rows = [
        (f"`{', '.join(p.opts) if p.opts[0].startswith('-') else p.name.upper()}`", p.help or "")
        for p in command.params
    ]
    yield from table(("option", "meaning"), rows)


def main() -> None:
    """Writes the page to the file that is named, by default `docs/api.md`."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "api.md"
    target.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

"""The form that an answer must have, from whichever field asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from server.errors import bad_request, echo
from server.intake.json_depth import is_too_deep
from server.protocol.answer_form.response_format import ResponseFormat
from server.protocol.answer_form.structured import FormFields
from server.tools.grammars import choice_rule, client_rule, json_rule, regex_rule, tags_rule

_RULE = "answer"


@dataclass(frozen=True, slots=True)
class AskedForm:
    """The grammar rule `answer`, and the request's field that asks for it."""

    field: str
    rule: str


def asked_form(body: FormFields) -> AskedForm | None:
    """The form of the answer; None for free text. Raises a 400 that names the field, also where two fields ask."""
    found = [(field, kind, value) for field, kind, value in _asked(body) if value not in (None, False)]
    if not found:
        return None
    field, kind, value = found[0]
    if len(found) > 1:
        other = found[1][0]
        raise bad_request(f"`{field}` and `{other}` both say what form the answer has; one must do.", other)
    return AskedForm(field, _rule(field, kind, value))


def _asked(body: FormFields) -> Iterator[tuple[str, str, Any]]:
    wanted, structured = body.response_format, body.structured_outputs
    if wanted is not None and wanted.type != "text":
        yield "response_format", "format", wanted
    if structured is not None:
        name = "structured_outputs"
        yield name, "json", structured.json_
        yield name, "object", structured.json_object
        yield name, "regex", structured.regex
        yield name, "choice", structured.choice
        yield name, "grammar", structured.grammar
        yield name, "tags", structured.structural_tag
    yield "guided_json", "json", body.guided_json
    yield "guided_regex", "regex", body.guided_regex
    yield "guided_choice", "choice", body.guided_choice
    yield "guided_grammar", "grammar", body.guided_grammar
    yield "json_schema", "json", body.json_schema
    yield "grammar", "grammar", body.grammar
    yield "regex", "regex", body.regex
    yield "ebnf", "grammar", body.ebnf


def _rule(field: str, kind: str, value: Any) -> str:
    if kind == "format":
        return _format_rule(field, value)
    if kind == "json":
        return json_rule(_RULE, _object(value, field), strict=False, field=field)
    if kind == "object":
        return json_rule(_RULE, {"type": "object"}, strict=True, field=field)
    if kind == "regex":
        return regex_rule(_RULE, value)
    if kind == "choice":
        return choice_rule(_RULE, value)
    if kind == "grammar":
        return client_rule(_RULE, value, field)
    try:
        tags = ResponseFormat.model_validate({"type": "structural_tag", **_object(value, field)})
    except ValidationError as error:
        raise bad_request(f"`{field}`: {echo(error.errors()[0]['msg'])}", field) from None
    return _format_rule(field, tags)


def _format_rule(field: str, wanted: ResponseFormat) -> str:
    if wanted.type == "structural_tag":
        return tags_rule(_RULE, wanted.structures or (), wanted.triggers or (), field)
    if wanted.json_schema is not None:
        named = wanted.json_schema
        return json_rule(_RULE, named.schema_, strict=bool(named.strict), field=field)
    if wanted.schema_ is not None:
        return json_rule(_RULE, wanted.schema_, strict=False, field=field)
    return json_rule(_RULE, {"type": "object"}, strict=True, field=field)


def _object(value: Any, field: str) -> dict[str, Any]:
    """An object, which may be written as JSON text; raises a 400."""
    if isinstance(value, str):
        # The body's depth was checked when it was read, but this is JSON inside one of its strings.
        if is_too_deep(value.encode("utf-8", "replace")):
            raise bad_request(f"`{field}` is nested too deeply.", field)
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict):
        raise bad_request(f"`{field}` must be an object, or JSON text of one.", field)
    return value

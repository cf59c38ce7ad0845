"""The grammars that constrain answers, in llguidance's dialect of Lark, which contains JSON schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server.errors import bad_request
from server.protocol.response_format import ResponseFormat

MAX_SCHEMA_BYTES = 2**16
_WHITESPACE = "[ ]?"
"""The white space between JSON's tokens: at most one space, so that no model can fill an answer with white space."""


def json_rule(name: str, schema: Mapping[str, Any], *, strict: bool, field: str) -> str:
    """The grammar rule `name`: JSON that satisfies `schema`.

    Keywords that cannot be enforced are errors where `strict`, and are ignored otherwise. Raises a 400 that names
    `field` for a schema that is too long.
    """
    options = {"whitespace_pattern": _WHITESPACE, "lenient": not strict}
    text = json.dumps({**schema, "x-guidance": options})
    if len(text) > MAX_SCHEMA_BYTES:
        raise bad_request(f"`{field}` is longer than the limit of {MAX_SCHEMA_BYTES} bytes.", field)
    return f"{name}: %json {text}\n"


def answer_rule(response_format: ResponseFormat | None) -> str | None:
    """The grammar rule `answer` for `response_format`; None for plain text. Raises what `json_rule` raises."""
    if response_format is None or response_format.type == "text":
        return None
    wanted = response_format.json_schema
    if wanted is None:
        return json_rule("answer", {"type": "object"}, strict=True, field="response_format")
    return json_rule("answer", wanted.schema_, strict=bool(wanted.strict), field="response_format")

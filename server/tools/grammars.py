"""The grammars that constrain answers, in llguidance's dialect of Lark, which contains JSON schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llguidance.gbnf_to_lark import any_to_lark

from server.errors import bad_request, echo
from server.protocol.answer_form.response_format import TagStructure

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


def choice_rule(name: str, choices: Sequence[str]) -> str:
    """The grammar rule `name`: one of `choices`."""
    return f"{name}: {' | '.join(map(_quoted, choices))}\n"


def regex_rule(name: str, regex: str) -> str:
    """The grammar rule `name`: a text that matches `regex` as a whole."""
    # A slash would end the expression in the grammar, and so would a line break.
    escaped = re.sub(r"\\?[/\n]", lambda found: "\\x2f" if "/" in found.group() else "\\n", regex)
    return f"{name}: /{escaped}/\n"


def client_rule(name: str, grammar: str, field: str) -> str:
    """The grammar rule `name`: a client's own grammar, in GBNF or in llguidance's Lark. Raises a 400."""
    if "%llguidance" in grammar:
        raise bad_request(f"`{field}` may not set options of its own (%llguidance).", field)
    try:
        lark = any_to_lark(grammar)
    except Exception as error:  # noqa: BLE001 - the converter raises whatever its parser meets
        raise bad_request(f"`{field}` cannot be read as a grammar: {echo(error)}", field) from None
    lines = [line for line in lark.splitlines() if not line.startswith("%llguidance")]
    return f"{name}: %lark {{\n" + "\n".join(lines) + "\n}\n"


def tags_rule(name: str, structures: Sequence[TagStructure], triggers: Sequence[str], field: str) -> str:
    """The grammar rule `name`: text in which each trigger begins one of the tags. Raises what `json_rule` raises."""
    rules = [f"{name}: ({' | '.join(f'tag_{i}' for i in range(len(triggers)))})* TEXT?\nTEXT: /(.|\\n)+/\n"]
    for i, trigger in enumerate(triggers):
        inside = [j for j, tag in enumerate(structures) if tag.begin.startswith(trigger)]
        ways = [
            f"{_quoted(structures[j].begin[len(trigger) :])} tag_json_{j} {_quoted(structures[j].end)}"
            for j in inside
        ]
        text = re.escape(trigger).replace("/", "\\/").replace("\\\n", "\\n")
        rules.append(
            f"trigger_{i}[lazy]: /(.|\\n)*{text}/\ntag_{i}: trigger_{i} ({' | '.join(ways) or '/never/'})\n"
        )
    for j, tag in enumerate(structures):
        rules.append(json_rule(f"tag_json_{j}", tag.schema_, strict=False, field=field))
    return "".join(rules)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

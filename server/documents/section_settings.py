"""The section on settings, from `Config`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ByteSize
from pydantic_core import PydanticUndefined

from server.config import Config
from server.documents.markdown import table
from server.documents.schema_text import bounds


def settings_section() -> Iterator[str]:
    """The lines of the section. Raises ValueError for a setting without a description."""
    yield "## Settings\n"
    yield "Each setting is a flag of `trimtab serve`, an environment variable, and a key of the TOML file that"
    yield "`--config` names. A flag overrides the environment, which overrides the file. For a list, give the flag"
    yield "several times, separate the variable's values by commas, or write an array in the file (a table for"
    yield "`NAME=PATH`).\n"
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
                _default(field),
                field.description,
            )
        )
    yield from table(("key", "flag", "variable", "bounds", "default", "meaning"), rows)


def _limits(schema: dict[str, Any]) -> str:
    """The bounds of a setting; a size has a pattern that would tell the reader nothing."""
    is_size = any("\\d" in choice.get("pattern", "") for choice in (schema, *schema.get("anyOf", ())))
    return "a size, as in `2GiB`" if is_size else bounds(schema)


def _default(field: Any) -> str:
    """The default of a setting; "" if it is empty or None."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None or value in ((), {}):
        return ""
    if isinstance(value, ByteSize):
        return value.human_readable()
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"

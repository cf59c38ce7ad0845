"""The base classes of every JSON object in a request or a reply."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

CLIENT_NAME = r"^[a-zA-Z0-9_.-]{1,64}$"
"""The pattern of the names that clients give to functions and schemas: nothing in them needs to be quoted."""


class RequestObject(BaseModel):
    """An object in a request. Unknown fields, numbers in strings, NaN and infinities are errors."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


class ReplyObject(BaseModel):
    """An object in a reply."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


def absent(value: object) -> bool:
    """True for None: such a field is left out of the reply rather than sent as null."""
    return value is None

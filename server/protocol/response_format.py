"""The field `response_format`: the form that an answer must have."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from server.protocol.objects import CLIENT_NAME, RequestObject


class JsonSchema(RequestObject):
    """A JSON schema with a name."""

    name: str = Field(min_length=1, max_length=64, pattern=CLIENT_NAME)
    """the schema's name"""
    description: str | None = Field(None, max_length=10_000)
    """the purpose of the answer; the model does not see it"""
    schema_: dict[str, Any] = Field(alias="schema")
    """the JSON schema; a `$ref` may only point into the schema itself"""
    strict: bool | None = None
    """true: a keyword that cannot be enforced is a 400; false: it is ignored. All others are enforced either way"""


class ResponseFormat(RequestObject):
    """The form of the answer: plain text, any JSON object, or JSON that satisfies a schema."""

    type: Literal["text", "json_object", "json_schema"]
    """plain text, any JSON object, or JSON that satisfies `json_schema`"""
    json_schema: JsonSchema | None = None
    """the schema, with the type `json_schema`"""

    @model_validator(mode="after")
    def _schema_where_it_belongs(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("`json_schema` is needed with the type 'json_schema', and with no other")
        return self

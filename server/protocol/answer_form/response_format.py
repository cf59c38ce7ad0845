"""The field `response_format`: the form that an answer must have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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


class TagStructure(RequestObject):
    """A tag in the text, and what stands in it."""

    begin: str = Field(min_length=1, max_length=1000)
    """the tag's beginning; it begins with one of the triggers"""
    schema_: dict[str, Any] = Field(alias="schema")
    """the JSON schema of what follows"""
    end: str = Field(max_length=1000)
    """the tag's end"""


Trigger = Annotated[str, Field(min_length=1, max_length=1000)]


class ResponseFormat(RequestObject):
    """The form of the answer: plain text, any JSON object, JSON that satisfies a schema, or text with tags."""

    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    """plain text, any JSON object, JSON that satisfies a schema, or text with tags"""
    json_schema: JsonSchema | None = None
    """the schema, with the type `json_schema`"""
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    """the schema, with the type `json_object` or in place of `json_schema`, as llama.cpp's clients write it"""
    structures: list[TagStructure] | None = Field(None, min_length=1, max_length=128)
    """the tags, with the type `structural_tag`"""
    triggers: list[Trigger] | None = Field(None, min_length=1, max_length=128)
    """the strings from which on a tag must follow, with the type `structural_tag`"""

    @model_validator(mode="after")
    def _what_its_type_wants(self) -> ResponseFormat:
        if self.type == "json_schema" and (self.json_schema is None) == (self.schema_ is None):
            raise ValueError("the type 'json_schema' needs `json_schema` or `schema`")
        if self.json_schema is not None and self.type != "json_schema":
            raise ValueError("`json_schema` belongs to the type 'json_schema'")
        if self.schema_ is not None and self.type not in ("json_schema", "json_object"):
            raise ValueError("`schema` belongs to the types 'json_object' and 'json_schema'")
        tagged = (self.structures is not None, self.triggers is not None)
        if tagged != ((self.type == "structural_tag"),) * 2:
            raise ValueError(
                "`structures` and `triggers` belong to the type 'structural_tag', which needs both"
            )
        for structure in self.structures or ():
            if not any(structure.begin.startswith(trigger) for trigger in self.triggers or ()):
                raise ValueError("the `begin` of every structure must begin with one of the `triggers`")
        return self

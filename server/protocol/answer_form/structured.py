"""The form of an answer in the fields of vLLM, llama.cpp and SGLang; all mean what `response_format` means."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from server.protocol.answer_form.response_format import ResponseFormat
from server.protocol.objects import RequestObject

MAX_GRAMMAR = 2**14
Schema = dict[str, Any] | Annotated[str, Field(min_length=1, max_length=2**17)]
"""A JSON schema, or its JSON text."""
Text = Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR)]
Choices = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(min_length=1, max_length=1024)
]


class StructuredOutputs(RequestObject):
    """The form of the answer, as vLLM's clients write it; exactly one field."""

    json_: Schema | None = Field(None, alias="json")
    """a JSON schema, as an object or as JSON text"""
    json_object: bool | None = None
    """any JSON object"""
    regex: Text | None = None
    """a regular expression, which the whole answer matches"""
    choice: Choices | None = None
    """the answers that are allowed"""
    grammar: Text | None = None
    """a grammar: Lark as llguidance has it, or GBNF"""
    structural_tag: dict[str, Any] | Text | None = None
    """tags in free text and the JSON schema that must follow each: an object, or its JSON text"""


class FormFields(RequestObject):
    """The form of the answer: at most one of these fields."""

    response_format: ResponseFormat | None = None
    """the form that the answer must have"""
    structured_outputs: StructuredOutputs | None = None
    """the form of the answer, as in vLLM"""
    guided_json: Schema | None = None
    """a JSON schema, as in older versions of vLLM"""
    guided_regex: Text | None = None
    """a regular expression, as in older versions of vLLM"""
    guided_choice: Choices | None = None
    """the answers that are allowed, as in older versions of vLLM"""
    guided_grammar: Text | None = None
    """a grammar, as in older versions of vLLM"""
    guided_decoding_backend: str | None = Field(None, max_length=64)
    """accepted and ignored: llguidance compiles all grammars"""
    json_schema: Schema | None = None
    """a JSON schema, as in llama.cpp and SGLang"""
    grammar: Text | None = None
    """a grammar, as in llama.cpp: GBNF, or Lark as llguidance has it"""
    regex: Text | None = None
    """a regular expression, as in SGLang"""
    ebnf: Text | None = None
    """a grammar, as in SGLang"""

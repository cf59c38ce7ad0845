"""Conversations, schemas and tools that are broken, endless or explosive."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.hostile.attack import BASICS, CHAT, COMPLETIONS, Attack

USER = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    "messages",
    [
        *([], None, "a", {}, [None], ["a"], [[]], [{}], [1], True),
        *(
            [{"role": "user"}],
            [{"content": "a"}],
            [{"role": "user", "content": None}],
            [{**USER, "colour": "red"}],
        ),
        *(
            [{"role": "owner", "content": "a"}],
            [{"role": None, "content": "a"}],
            [{"role": "x" * 100_000, "content": ""}],
        ),
        *(
            [{"role": "USER", "content": "a"}],
            [{"role": ["user"], "content": "a"}],
            [{"role": "user", "content": 1}],
        ),
        *(
            [{"role": "user", "content": []}],
            [{"role": "user", "content": [None]}],
            [{"role": "user", "content": {}}],
        ),
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "text", "text": None}]}],
        [{"role": "user", "content": [{"type": "text", "text": "a", "colour": "red"}]}],
        [{**USER, "name": "x" * 100_000}],
        [USER] * 100_000,
        [{"role": "user", "content": "a ferry " * 50_000}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}] * 100_000}],
        [{"role": "tool", "content": "a"}],
        [{"role": "assistant", "content": None}],
        [
            {"role": "user", "content": "a", "tool_calls": []},
            {"role": "tool", "tool_call_id": "x" * 9999, "content": "a"},
        ],
        [
            {
                "role": "assistant",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}}],
            }
        ],
        [
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "[" * 9999}}
                ],
            }
        ],
    ],
    ids=lambda messages: json.dumps(messages)[:40],
)
def test_messages_that_cannot_be(attack: Attack, messages: Any) -> None:
    # 100,000 turns are well-formed, and too long for any model or for the server.
    reply = attack.send(CHAT, {**BASICS[CHAT], "messages": messages})
    assert reply.status_code in (400, 413), reply.text
    assert reply.json()["error"]["param"] == "messages"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\x00",
        "{{ 7 * 7 }}",
        "{% raw %}",
        "{% for i in range(10**9) %}a{% endfor %}",
        "assistant:\n\nuser:",
        "%s %(a)s {0}",
    ],
    ids=ascii,
)
def test_content_is_never_a_template(attack: Attack, content: str) -> None:
    answer = attack.accept(CHAT, {"messages": [{"role": "user", "content": content}]})
    tokens = attack.send("/tokenize", {"model": "bytes", "messages": [{"role": "user", "content": content}]})
    assert answer["usage"]["prompt_tokens"] == tokens.json()["count"]
    text = attack.send("/detokenize", {"model": "bytes", "tokens": tokens.json()["tokens"]}).json()["prompt"]
    assert content in text


@pytest.mark.parametrize(
    "field", ["chat_template", "chat_template_kwargs", "trust_remote_code", "structured_outputs", "lora"]
)
def test_no_template_and_no_code_comes_from_a_request(attack: Attack, field: str) -> None:
    attack.change(CHAT, {field: "{{ cycler.__init__.__globals__.os.popen('id').read() }}"}, param=field)


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {
            "type": "object",
            "properties": {"a": schema},
            "required": ["a"],
            "additionalProperties": False,
        }
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """A schema in which each definition refers twice to the next: 2^levels when expanded."""
    definitions: dict[str, Any] = {
        f"d{i}": {
            "type": "object",
            "properties": {side: {"$ref": f"#/$defs/d{i + 1}"} for side in "ab"},
            "required": ["a", "b"],
            "additionalProperties": False,
        }
        for i in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {"type": "string"}}}


SCHEMAS: dict[str, Any] = {
    "no object": [],
    "a string": "string",
    "null": None,
    "unknown type": {"type": "poem"},
    "type of a type": {"type": {"type": "string"}},
    "a list of nothing": {"enum": []},
    "an enormous enum": {"enum": [f"value {i}" for i in range(20_000)]},
    "never": False,
    "nothing can be": {"allOf": [{"type": "string"}, {"type": "integer"}]},
    "not": {"not": {}},
    "minimum above maximum": {"type": "integer", "minimum": 3, "maximum": 1},
    "endless": {"type": "string", "minLength": 10**9},
    "endless list": {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
    "many items": {"type": "array", "items": {"type": "string"}, "minItems": 5000, "maxItems": 10_000},
    "negative": {"type": "string", "minLength": -1},
    "recursive": {"type": "object", "properties": {"a": {"$ref": "#"}}},
    "itself": {"$ref": "#"},
    "itself by a definition": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "two of each other": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}},
    },
    "a reference to nowhere": {"$ref": "#/$defs/nowhere"},
    "a reference to the web": {"$ref": "http://127.0.0.1:9/schema.json"},
    "a reference to a file": {"$ref": "file:///etc/passwd"},
    "exponential": doubling(24),
    "exponential choice": {
        "anyOf": [{"anyOf": [{"type": "string", "minLength": i * j} for i in range(40)]} for j in range(40)]
    },
    "exponential product": {
        "allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {}}} for j in range(8)]} for i in range(12)]
    },
    "deep": deep(40),
    "too deep": deep(300),
    "wide": {
        "type": "object",
        "properties": {f"p{i}": {"type": "string"} for i in range(3_000)},
        "required": [f"p{i}" for i in range(3_000)],
    },
    "a bad pattern": {"type": "string", "pattern": "("},
    "an explosive pattern": {"type": "string", "pattern": "^((((a{1,100}){1,100}){1,100}){1,100})$"},
    "a wide pattern": {"type": "string", "pattern": "^(a?){5000}a{5000}$"},
    "looking ahead": {"type": "string", "pattern": "^(?=.*a)(?!.*b).*$"},
    "a very long pattern": {"type": "string", "pattern": "(a|b)" * 20_000},
    "an odd key": {"type": "object", "properties": {'\x00\ud7ff"\\': {"type": "string"}}},
    "an unknown keyword": {"type": "object", "colour": "red"},
    "nan": {"type": "number", "minimum": float("nan")},
    "the largest number": {"type": "number", "minimum": 1e308, "maximum": 1.5e308},
    "multiples": {"type": "number", "multipleOf": 1e-300},
    "multiples of nothing": {"type": "number", "multipleOf": 0},
}


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_that_cannot_be_or_should_not(attack: Attack, path: str, name: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMAS[name]}}
    reply = attack.send(path, {**BASICS[path], "response_format": form, "max_tokens": 6})
    assert reply.status_code in (200, 400, 413), reply.text
    if reply.status_code == 400:
        # A body that is nested too deeply is not parsed at all, so no field can be named.
        assert reply.json()["error"]["param"] == (None if name == "too deep" else "response_format")


@pytest.mark.parametrize(
    "form",
    [
        *(
            1,
            "json_object",
            [],
            {},
            {"type": None},
            {"type": "poem"},
            {"type": "json_schema"},
            {"type": "text", "a": 1},
        ),
        *(
            {"type": "json_schema", "json_schema": {}},
            {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}},
        ),
        *(
            {"type": "json_object", "json_schema": {"name": "a", "schema": {}}},
            {"type": "grammar", "grammar": "root ::= root"},
        ),
    ],
    ids=json.dumps,
)
def test_an_invalid_response_format(attack: Attack, form: Any) -> None:
    attack.change(CHAT, {"response_format": form}, param="response_format")


def function(name: Any = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


TOOLS: dict[str, Any] = {
    "no list": {},
    "a string": "f",
    "empty tool": [{}],
    "null": [None],
    "no function": [{"type": "function"}],
    "another type": [{"type": "code_interpreter"}],
    "no name": [function(None)],
    "an empty name": [function("")],
    "an odd name": [function("a b\r\n")],
    "a long name": [function("f" * 1000)],
    "two of one name": [function(), function()],
    "too many": [function(f"f{i}") for i in range(5_000)],
    "a long description": [function(description="x" * 500_000)],
    "a special token": [function(description="<|endoftext|>")],
    "parameters that are none": [function(parameters=[])],
    "recursive parameters": [function(parameters={"$ref": "#"})],
    "explosive parameters": [function(parameters=doubling(24))],
    "an explosive pattern": [
        function(parameters={"type": "object", "properties": {"a": SCHEMAS["an explosive pattern"]}})
    ],
}


@pytest.mark.parametrize(
    "choice", [None, "auto", "required", "none", function("nobody"), "poem", 1], ids=json.dumps
)
@pytest.mark.parametrize("name", TOOLS)
def test_tools_that_cannot_be_or_should_not(attack: Attack, name: str, choice: Any) -> None:
    change = {"tools": TOOLS[name]} | ({} if choice is None else {"tool_choice": choice})
    reply = attack.send(CHAT, {**BASICS[CHAT], **change})
    assert reply.status_code in (200, 400, 413), reply.text
    if reply.status_code != 200:
        assert reply.json()["error"]["param"] in ("tools", "tool_choice", "messages"), reply.text

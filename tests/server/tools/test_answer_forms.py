"""The form of an answer in the words of vLLM, llama.cpp and SGLang: each becomes the same kind of grammar."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.server.fakes import FakeEngine
from tests.server.tools.structured import CALL, SCHEMA, USER, WEATHER, Toolsmith, accepts, chat

GBNF = 'root ::= "yes" | "no" digit+\ndigit ::= [0-9/]'
LARK = 'start: "yes" | "no" DIGIT+\nDIGIT: /[0-9\\/]/'
TAGS = {
    "structures": [
        {"begin": "<fn=a>", "schema": SCHEMA, "end": "</fn>"},
        {"begin": "<fn=b>", "schema": {"type": "integer"}, "end": "</fn>"},
    ],
    "triggers": ["<fn="],
}
JSON = (['{"a": "x"}', '{"a":"y"}'], ['{"a": "z"}', "hello"])
WORDS = (["yes", "no7", "no1/2"], ["no", "maybe", "yes "])
REGEX = (["a/b", "a\nb"], ["a", "a-b", "xa/b"])
CHOICE = (["é\n", 'say "b"'], ["", "say", "é"])
FORMS: list[tuple[dict[str, Any], tuple[list[str], list[str]]]] = [
    ({"response_format": {"type": "json_object", "schema": SCHEMA}}, JSON),
    ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, JSON),
    ({"structured_outputs": {"json": SCHEMA}}, JSON),
    ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, JSON),
    ({"guided_json": SCHEMA, "guided_decoding_backend": "xgrammar"}, JSON),
    ({"json_schema": SCHEMA}, JSON),
    ({"structured_outputs": {"json_object": True}}, (["{}", '{"b": [1]}'], ["[]", "x"])),
    ({"structured_outputs": {"grammar": GBNF}}, WORDS),
    ({"guided_grammar": LARK}, WORDS),
    ({"grammar": GBNF}, WORDS),
    ({"ebnf": GBNF}, WORDS),
    ({"structured_outputs": {"regex": "a[/\n]b"}}, REGEX),
    ({"guided_regex": r"a(\/|\n)b"}, REGEX),
    ({"regex": "a[\\/\\n]b"}, REGEX),
    ({"structured_outputs": {"choice": ["é\n", 'say "b"']}}, CHOICE),
    ({"guided_choice": ["é\n", 'say "b"']}, CHOICE),
    (
        {"structured_outputs": {"structural_tag": json.dumps({"type": "structural_tag", **TAGS})}},
        (["free", 'so <fn=a>{"a": "x"}</fn> and <fn=b>7</fn>!'], ["<fn=c>", "<fn=b>x</fn>", "<fn=b>7"]),
    ),
    ({"response_format": {"type": "structural_tag", **TAGS}}, (["", "<fn=b>7</fn>"], ["<fn=a>7</fn>"])),
]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(max_model_len=4096)


@pytest.mark.parametrize(("fields", "texts"), FORMS, ids=lambda part: str(part)[:60])
def test_each_form_becomes_a_grammar(
    client: TestClient, engine: FakeEngine, fields: dict[str, Any], texts: tuple[list[str], list[str]]
) -> None:
    for path, asked in (("/v1/completions", {"prompt": "hi"}), ("/v1/chat/completions", {"messages": USER})):
        reply = client.post(path, json={"model": "base:forget", **asked, **fields})
        assert reply.status_code == 200, reply.text
        for good in texts[0]:
            assert accepts(engine, good), good
        for bad in texts[1]:
            assert not accepts(engine, bad), bad


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "(?=a)b"}, "guided_regex"),
        ({"regex": "("}, "regex"),
        ({"regex": "a/\nstart: /b"}, None),
        ({"grammar": "root ::= nobody"}, "grammar"),
        ({"ebnf": 'start: "a"\n%llguidance {"no_forcing": false}'}, "ebnf"),
        ({"guided_grammar": 'start: "a" }\nother: "b"'}, "guided_grammar"),
        ({"guided_json": "[]"}, "guided_json"),
        ({"guided_json": "{" * 200}, "guided_json"),
        ({"guided_json": {"type": "banana"}}, "guided_json"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": [""]}, "guided_choice"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"poem": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs"),
        ({"regex": "a", "grammar": 'root ::= "a"'}, "regex"),
        ({"regex": "a", "response_format": {"type": "json_object"}}, "regex"),
        (
            {"response_format": {"type": "structural_tag", "structures": TAGS["structures"]}},
            "response_format",
        ),
        (
            {"response_format": {"type": "structural_tag", **TAGS, "triggers": ["<other"]}},
            "response_format",
        ),
        ({"response_format": {"type": "text", "schema": SCHEMA}}, "response_format"),
    ],
    ids=lambda part: str(part)[:60],
)
def test_forms_that_cannot_be_are_refused(
    client: TestClient, engine: FakeEngine, fields: dict[str, Any], param: str | None
) -> None:
    if param is None:
        # One expression, whatever is in it.
        chat(client, **fields)
        assert accepts(engine, "a/\nstart: /b") and not accepts(engine, "b")
        return
    error = chat(client, 400, **fields)["error"]
    assert error["param"] == param, error
    assert engine.seen == []


def test_a_call_or_an_answer_of_a_clients_grammar(client: TestClient, engine: FakeEngine) -> None:
    engine.base.tokenizer = Toolsmith()
    chat(client, tools=[WEATHER], grammar=GBNF)
    assert accepts(engine, CALL) and accepts(engine, "no7") and not accepts(engine, "hello")

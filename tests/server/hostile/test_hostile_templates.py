"""Values for chat templates as an attack, and grammars and expressions of clients that explode."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.hostile.attack import BASICS, CHAT, COMPLETIONS, Attack

USER = {"role": "user", "content": "a"}
TEMPLATE = "{{ cycler.__init__.__globals__.os.popen('id').read() }}"


@pytest.mark.parametrize(
    "name",
    [
        "messages",
        "chat_template",
        "tokenize",
        "tools",
        "bos_token",
        "cycler",
        "nobody",
        "no name",
        "__class__",
        "",
    ],
)
@pytest.mark.parametrize("value", [TEMPLATE, True, None, "x" * 1000])
def test_values_for_a_template_that_reads_no_such_name(attack: Attack, name: str, value: Any) -> None:
    attack.change(CHAT, {"chat_template_kwargs": {name: value}}, param="chat_template_kwargs")
    body = {"model": "bytes", "messages": [USER], "chat_template_kwargs": {name: value}}
    attack.refuse("/tokenize", body, param="chat_template_kwargs")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chat_template_kwargs", {"a": [1]}),
        ("chat_template_kwargs", {str(i): 1 for i in range(17)}),
        ("chat_template_kwargs", {"role": "x" * 1001}),
        ("documents", [{"title": "a", "text": "b"}]),
        ("documents", [1]),
        ("documents", [{}] * 129),
        ("continue_final_message", "yes"),
        ("functions", []),
        ("function_call", {"name": "nobody"}),
        ("add_generation_prompt", 1),
        ("echo", "true"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_chat_fields_that_cannot_be(attack: Attack, field: str, value: Any) -> None:
    reply = attack.send(CHAT, {**BASICS[CHAT], field: value})
    assert reply.status_code == 400 and reply.json()["error"]["param"] in (field, "tool_choice"), reply.text


@pytest.mark.parametrize(
    "grammar",
    [
        *(
            "",
            "root ::= " + "(" * 8000,
            "root ::= " + '"a" ' * 4000,
            "root ::= [" + "a" * 16000,
            "::=" + "/" * 9000,
        ),
        "\n".join(f"r{i} ::= r{i + 1}" for i in range(900)) + "\nroot ::= r0",
        *(
            "root ::= root root",
            'start: start start | "a"',
            'start: "a"\n}\nstart: "b"',
            "start: /" + "a?" * 4000 + "/",
        ),
        *(
            'start: %json {"$ref": "file:///etc/passwd"}',
            "%import common.WORD\nstart: WORD",
            "start: <[0-99999999]>",
        ),
        *("x" * 20_000, "\x00", "start: @other", "%llguidance {}\nstart: /a/", 'start: "' + "\\" * 5000),
    ],
    ids=lambda grammar: repr(grammar)[:30],
)
@pytest.mark.parametrize("field", ["grammar", "guided_grammar"])
def test_a_clients_grammar_harms_nobody(attack: Attack, field: str, grammar: str) -> None:
    reply = attack.send(COMPLETIONS, {**BASICS[COMPLETIONS], field: grammar})
    assert reply.status_code in (200, 400), reply.text
    assert reply.status_code == 200 or reply.json()["error"]["param"] == field, reply.text


@pytest.mark.parametrize(
    "regex",
    [
        "(a+)+$",
        "(a|aa)+" * 50,
        "a{1000}{1000}",
        "(?=a)",
        "(",
        "[",
        "\\",
        "x" * 20_000,
        "\n/\n",
        "(?R)",
        "a{9999999}",
        "",
    ],
    ids=lambda regex: repr(regex)[:30],
)
def test_a_clients_expression_harms_nobody(attack: Attack, regex: str) -> None:
    reply = attack.send(COMPLETIONS, {**BASICS[COMPLETIONS], "guided_regex": regex})
    assert reply.status_code in (200, 400), reply.text
    assert reply.status_code == 200 or reply.json()["error"]["param"] == "guided_regex", reply.text

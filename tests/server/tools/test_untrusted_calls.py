"""Any text that a model writes is content or calls: its text is untrusted input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.tools.call_formats import Call
from tests.server.tools.reading import FORMS, NAMES, read

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["weather", "clock", "{}", '{"a": "\\ud800"}', "\ud800", "[[", 10**400]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "arguments", "parameters", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)
WRITTEN = {
    "hermes": "<tool_call>\n{}\n</tool_call>",
    "llama": "<|python_tag|>{}",
    "mistral": "[TOOL_CALLS] [{}]",
    "mistral-named": "[TOOL_CALLS]clock[ARGS]{}",
}


def check_parts(form: str, text: str) -> list[str | Call]:
    """The parts of any text: content that can be sent, and calls of offered functions with an object of JSON."""
    parts = read(FORMS[form], [text])
    calls = [part for part in parts if isinstance(part, Call)]
    for call in calls:
        assert call.name in NAMES
        assert isinstance(json.loads(call.arguments, parse_constant=pytest.fail), dict)
        call.arguments.encode()
    if not calls:
        assert "".join(part for part in parts if isinstance(part, str)) == text
    return parts


@pytest.mark.parametrize("form", list(FORMS))
@given(text=st.text(max_size=60), after=st.booleans())
def test_any_text_is_content_or_calls(form: str, text: str, after: bool) -> None:
    check_parts(form, FORMS[form].openings[0] + text if after else text)


@pytest.mark.parametrize("form", list(FORMS))
@given(
    call=st.fixed_dictionaries(
        {"name": st.just("clock") | VALUES},
        optional={"arguments": VALUES, "parameters": VALUES},
    )
    | VALUES,
    cuts=st.lists(st.tuples(st.integers(0, 10**6), st.text('{}[]",:e9\\u', max_size=2)), max_size=3),
)
def test_mutated_calls_are_content_or_calls(form: str, call: Any, cuts: list[tuple[int, str]]) -> None:
    text = WRITTEN[form].replace("{}", json.dumps(call))
    for place, inserted in cuts:
        start = place % (len(text) + 1)
        text = text[:start] + inserted + text[start + len(inserted) :]
    check_parts(form, text)


HUGE = "9" * 5000
ODD = [
    '{"name": {"a": 1}, "arguments": {}}',
    '{"name": ["clock"], "arguments": {}}',
    '{"name": null}',
    f'{{"name": "clock", "arguments": {{"a": {HUGE}}}}}',
    '{"name": "clock", "arguments": {"a": NaN}}',
    '{"name": "clock", "arguments": {"a": 1e999}}',
    '{"name": "clock", "arguments": {"a": "\\ud800"}}',
    '{"name": "clock", "arguments": ' + '{"a":' * 980 + "1" + "}" * 981,
    '{"name": "clock", "arguments": ' + '{"a":' * 100_000,
]


@pytest.mark.parametrize("text", ODD, ids=[text[:50] for text in ODD])
@pytest.mark.parametrize("form", list(FORMS))
def test_odd_calls_are_content_or_calls(form: str, text: str) -> None:
    check_parts(form, WRITTEN[form].replace("{}", text))


def test_half_a_surrogate_pair_stays_an_escape() -> None:
    text = WRITTEN["hermes"].replace("{}", '{"name": "clock", "arguments": {"a": "\\ud800"}}')
    assert read(FORMS["hermes"], [text]) == [Call("clock", '{"a": "\\ud800"}')]

"""Calls that a grammar holds: their arguments are passed on as they are written, and they can be cut off anywhere."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.tools.call_formats import Call
from server.tools.call_reader import CallBegun, CallText, Part, ToolCallReader
from server.tools.json_object import JsonObject
from steering.engine.constraint import ConstraintCompiler
from tests.server.fakes import EOS
from tests.server.tools.reading import FORMS
from tests.server.tools.test_tool_calls import FUNCTIONS, with_specials

TOWN = '{"town": "Köln", "days": 2}'
OBJECT = '{"name": "weather", "arguments": ' + TOWN + "}"
CLOCK = '{"name": "clock", "arguments": {}}'
WRITTEN = {
    "hermes": f"<tool_call>\n{OBJECT}\n</tool_call>\n<tool_call>\n{CLOCK}\n</tool_call>",
    "llama": OBJECT.replace("arguments", "parameters"),
    "mistral": f"[TOOL_CALLS] [{OBJECT}, {CLOCK}]",
    "mistral-named": f"[TOOL_CALLS]weather[ARGS]{TOWN}[TOOL_CALLS]clock[ARGS]{{}}",
}


def read_held(form: str, pieces: list[str], *, demanded: bool = True) -> tuple[str, list[tuple[str, str]]]:
    """The content, and the calls by name and arguments."""
    reader = ToolCallReader(FORMS[form], ["weather", "clock"], held=True, demanded=demanded)
    parts: list[Part] = [part for piece in pieces for part in reader.push(piece)] + reader.finish()
    content, calls = "", list[tuple[str, str]]()
    for part in parts:
        if isinstance(part, str):
            content += part
        elif isinstance(part, CallBegun):
            calls.append((part.name, ""))
        elif isinstance(part, CallText):
            calls[-1] = (calls[-1][0], calls[-1][1] + part.arguments)
        elif isinstance(part, Call):
            calls.append((part.name, part.arguments))
    return content, calls


@pytest.mark.parametrize("form", list(FORMS))
@given(cuts=st.lists(st.integers(0, 200), max_size=8), end=st.integers(0, 200))
def test_a_call_cut_off_anywhere_is_the_beginning_of_the_calls(form: str, cuts: list[int], end: int) -> None:
    whole = read_held(form, [WRITTEN[form]])
    assert whole == ("", [("weather", TOWN), ("clock", "{}")][: 1 if form == "llama" else 2])
    text = WRITTEN[form][:end]
    marks = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    content, calls = read_held(form, [text[a:b] for a, b in pairwise(marks)])
    assert content == ""
    assert [name for name, _ in calls] == [name for name, _ in whole[1]][: len(calls)]
    for index, (_, arguments) in enumerate(calls):
        expected = whole[1][index][1]
        assert arguments == expected if index < len(calls) - 1 else expected.startswith(arguments)


@given(
    value=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.integers() | st.text(st.sampled_from('{}[]"\\é,'), max_size=6),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
        ),
        max_size=3,
    ),
    ascii_only=st.booleans(),
    rest=st.text(max_size=5),
    cuts=st.lists(st.integers(0, 99), max_size=5),
)
def test_the_end_of_an_object(value: dict[str, object], ascii_only: bool, rest: str, cuts: list[int]) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    marks = sorted({0, len(text + rest), *(cut % (len(text + rest) + 1) for cut in cuts)})
    scanner, taken = JsonObject(), ""
    for start, end in pairwise(marks):
        if not scanner.ended:
            piece = (text + rest)[start:end]
            taken += piece[: scanner.push(piece)]
    assert taken == text and scanner.ended


def tokens_of(text: str, marks: tuple[str, ...]) -> list[int]:
    """The text as bytes, and as the special tokens that follow the byte vocabulary."""
    tokens: list[int] = []
    while text:
        mark = next((mark for mark in marks if text.startswith(mark)), None)
        tokens += list(text[0].encode()) if mark is None else [EOS + 1 + marks.index(mark)]
        text = text[len(mark or text[0]) :]
    return tokens


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("form", list(FORMS))
def test_free_text_is_held_from_the_mark_of_a_call_on(form: str, parallel: bool, special: bool) -> None:
    from server.tools.tool_use import ToolUse

    marks = (
        ("<|think|>", "[TOOL_CALLS]", "[ARGS]", "<tool_call>", "</tool_call>") if special else ("<|think|>",)
    )
    vocabulary = with_specials(*marks)
    use = ToolUse(FORMS[form], FUNCTIONS, demanded=False, parallel=parallel)
    rules = f"start: free\n{use.free_rules(vocabulary, {EOS})}"
    constraint = ConstraintCompiler(vocabulary, {EOS}).compile(rules)

    def accepts(text: str) -> bool:
        state, tokens = constraint.start(), tokens_of(text, marks)
        for place, token in enumerate(tokens):
            bits = state.allowed(())
            if bits is None or not (bits[token >> 5] >> (token & 31)) & 1:
                return False
            if state.follow(tokens[: place + 1]):
                return place == len(tokens) - 1
        bits = state.allowed(())
        return bits is not None and bool(bits[EOS >> 5] >> (EOS & 31) & 1)

    assert all(map(accepts, ["", "hello", "a < b [TOOL", "a<|think|>b<|think|>", 'I say {"name": "weather"']))
    both = WRITTEN[form]
    first = {
        "hermes": both[: both.index("\n<tool_call>", 5)] if "\n<tool_call>" in both[5:] else both,
        "llama": both,
        "mistral": f"[TOOL_CALLS] [{OBJECT}]",
        "mistral-named": f"[TOOL_CALLS]weather[ARGS]{TOWN}",
    }[form]
    assert accepts(first) and (form == "llama" or accepts(f"<|think|>Well. {first}"))
    assert accepts(both) == (parallel or form == "llama")
    assert not accepts(first.replace("Köln", "Paris")) and not accepts(first.replace('"days"', '"hours"'))

"""Function calls in each format: parsed however the text is split, and demanded by a grammar."""

from __future__ import annotations

import dataclasses
import json
import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapping_cache import CanonicalVocabulary
from server.protocol.tools import FunctionSpec
from server.tools.call_formats import Call, HermesCalls, LlamaCalls, MistralCalls, find_format
from server.tools.call_reader import ToolCallReader
from server.tools.tool_use import ToolUse
from steering.engine.constraint import ConstraintCompiler
from tests.server.fakes import EOS, VOCABULARY
from tests.server.tools.reading import FORMS, NAMES, read

RAIN = '{"town": "Köln {x}", "days": [1, 2]}'
WEATHER, CLOCK = Call("weather", RAIN), Call("clock", "{}")
READ: list[tuple[str, str, list[Any]]] = [
    ("hermes", f'<tool_call>\n{{"name": "weather", "arguments": {RAIN}}}\n</tool_call>', [WEATHER]),
    (
        "hermes",
        f'Let me see.\n<tool_call>{{"arguments": {RAIN}, "name": "weather"}}</tool_call>\n'
        '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>\n',
        ["Let me see.", WEATHER, CLOCK],
    ),
    ("hermes", '<tool_call>{"name": "clock"}', [CLOCK]),
    ("hermes", '<tool_call>{"name": "clock", "arguments": "{}"}</tool_call> done', [CLOCK, "done"]),
    (
        "hermes",
        '<tool_call>{"name": "weather", "arguments": {"town": "</tool_call>"}}</tool_call>',
        [Call("weather", '{"town": "</tool_call>"}')],
    ),
    ("hermes", '<tool_call>{"name": "nobody", "arguments": {}}</tool_call>', [...]),
    ("hermes", "<tool_call>\nno call at all", [...]),
    ("hermes", "2 < 3 and <tool", [...]),
    ("hermes", "<tool_call>[1]</tool_call>", [...]),
    ("hermes", '<tool_call>{"name": "clock", "arguments": 3}</tool_call>', [...]),
    ("hermes", "", []),
    ("llama", f'{{"name": "weather", "parameters": {RAIN}}}', [WEATHER]),
    (
        "llama",
        f'<|python_tag|>{{"name": "weather", "parameters": {RAIN}}}; {{"name": "clock"}}',
        [WEATHER, CLOCK],
    ),
    ("llama", '  {"name": "clock", "parameters": {}}', [CLOCK]),
    ("llama", '{"answer": 42} is what it is', [...]),
    ("llama", 'I say {"name": "clock", "parameters": {}}', [...]),
    ("llama", "{ never closed", [...]),
    (
        "mistral",
        f'[TOOL_CALLS] [{{"name": "weather", "arguments": {RAIN}}}, {{"name": "clock"}}]',
        [WEATHER, CLOCK],
    ),
    ("mistral", f"Well.[TOOL_CALLS]weather[ARGS]{RAIN}[TOOL_CALLS]clock{{}}", ["Well.", WEATHER, CLOCK]),
    ("mistral", "[TOOL_CALLS] nobody{}", [...]),
    ("mistral", "[TOOL_CALLS]clock", [...]),
]


@pytest.mark.parametrize(
    ("form", "text", "expected"), READ, ids=[f"{case[0]}: {case[1][:50]}" for case in READ]
)
@given(cuts=st.lists(st.integers(0, 200), max_size=12))
def test_the_parts_of_a_text_however_it_is_split(
    form: str, text: str, expected: list[Any], cuts: list[int]
) -> None:
    marks = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[start:end] for start, end in pairwise(marks)]
    # `...` stands for a text that is content as a whole.
    assert read(FORMS[form], pieces) == ([text] if expected == [...] else expected)


@given(
    pieces=st.lists(
        st.sampled_from([*'<>{}[]"tol_ca:; \n', "<tool_call>", "[TOOL_CALLS]", '{"name": "clock"}'])
    )
)
@pytest.mark.parametrize("form", list(FORMS))
def test_no_text_breaks_the_reader_or_is_lost(form: str, pieces: list[str]) -> None:
    parts = read(FORMS[form], pieces)
    assert parts == read(FORMS[form], ["".join(pieces)])
    if not any(isinstance(part, Call) for part in parts):
        assert "".join(part for part in parts if isinstance(part, str)) == "".join(pieces)


def test_without_parallel_calls_the_first_is_all() -> None:
    text = '<tool_call>{"name": "clock"}</tool_call><tool_call>{"name": "weather"}</tool_call> and more'
    assert read(FORMS["hermes"], [text], parallel=False) == [CLOCK]
    listed = '[TOOL_CALLS][{"name": "clock"}, {"name": "weather"}]'
    assert read(FORMS["mistral"], [listed], parallel=False) == [CLOCK]


def test_content_goes_out_as_soon_as_it_is_certain() -> None:
    reader = ToolCallReader(HermesCalls(), NAMES)
    assert reader.push("Let me see ") == ["Let me see"]
    assert reader.push("< and") == [" < and"]
    assert reader.push(" <tool_c") == []
    assert reader.push("ar") == [" <tool_car"]


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ("... <tool_call>\n{{ call | tojson }}\n</tool_call>", HermesCalls),
        ("... <tool_call>\n<function={{ name }}>", type(None)),
        ("[AVAILABLE_TOOLS] ... [TOOL_CALLS] ...", MistralCalls),
        ("""'{"name": "' + name + '", "parameters": '""", LlamaCalls),
        ("User: {{ content }}", type(None)),
    ],
)
def test_the_template_tells_the_form(template: str, kind: type) -> None:
    assert type(find_format(template)) is kind


def test_mistrals_newer_templates_want_names() -> None:
    assert find_format("[TOOL_CALLS]name[ARGS]") == MistralCalls(named=True)


FUNCTIONS = (
    FunctionSpec(
        name="weather",
        description=None,
        parameters={
            "properties": {
                "town": {"enum": ["Köln", "Oslo"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["town", "days"],
            "additionalProperties": False,
        },
        strict=True,
    ),
    FunctionSpec(name="clock", description=None),
)


def with_specials(*marks: str) -> CanonicalVocabulary:
    """The byte vocabulary with `marks` as further special tokens."""
    numbers = dict(enumerate(marks, len(VOCABULARY)))
    return dataclasses.replace(
        VOCABULARY,
        tokens=(*VOCABULARY.tokens, *(None for _ in marks)),
        surfaces=(*VOCABULARY.surfaces, *marks),
        specials={**VOCABULARY.specials, **numbers},
    )


@pytest.mark.parametrize(
    "marks", [(), ("[TOOL_CALLS]", "[ARGS]", "<tool_call>", "</tool_call>")], ids=["text", "special"]
)
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("form", list(FORMS))
def test_every_text_of_the_grammar_is_parsed_as_calls(
    form: str, parallel: bool, marks: tuple[str, ...]
) -> None:
    vocabulary = with_specials(*marks)
    use = ToolUse(FORMS[form], FUNCTIONS, demanded=True, parallel=parallel)
    shown = use.shown(vocabulary)
    constraint = ConstraintCompiler(vocabulary, {EOS}).compile(f"start: calls\n{use.rules(vocabulary)}")
    chance = random.Random(form)
    most = 0
    for _ in range(12):
        state, tokens = constraint.start(), list[int]()
        while True:
            bits = state.allowed(())
            assert bits is not None, state.error
            allowed = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
            others = [int(token) for token in allowed if token != EOS]
            # Ends half the time where the grammar allows it, so that the walks are finite.
            token = EOS if not others or (EOS in allowed and chance.random() < 0.5) else chance.choice(others)
            if token == EOS:
                break
            tokens.append(token)
            if state.follow(tokens):
                break
        spelled = (
            shown[token].encode() if token in shown else vocabulary.tokens[token] or b"" for token in tokens
        )
        parts = read(FORMS[form], [b"".join(spelled).decode()], parallel=parallel)
        assert parts and all(isinstance(part, Call) for part in parts), tokens
        most = max(most, len(parts))
        for part in parts:
            assert isinstance(part, Call)
            arguments = json.loads(part.arguments)
            if part.name == "clock":
                assert arguments == {}
            else:
                assert arguments["town"] in ("Köln", "Oslo") and 1 <= arguments["days"] <= 9
    assert most > 1 if parallel and form != "llama" else most == 1

"""The form of the answer, and calls of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.compat.feature import CHAT, COMPLETIONS, Answer, Feature
from tests.server.tools.structured import CALL, CLOCK, FORMAT, SCHEMA, WEATHER, accepts

GBNF = 'root ::= "yes" | "no"'


def holds(good: str, bad: str = "hello") -> Callable[[Answer], bool]:
    """Whether the engine's grammar accepts one text and not the other."""
    return lambda answer: accepts(answer.engine, good) and not accepts(answer.engine, bad)


def form(name: str, peers: str, fields: dict[str, Any], good: str = '{"a": "x"}') -> Feature:
    return Feature(name, peers, COMPLETIONS, fields, holds(good))


def calls(name: str, peers: str, fields: dict[str, Any], shows: Callable[[Answer], bool]) -> Feature:
    return Feature(name, peers, CHAT, {"tools": [WEATHER, CLOCK], **fields}, shows, says=CALL)


TAGS = {"structures": [{"begin": "<f>", "schema": {"type": "integer"}, "end": "</f>"}], "triggers": ["<f>"]}
FORMS = [
    form("`response_format` with a schema", "vLLM, llama.cpp, SGLang", {"response_format": FORMAT}),
    form(
        "`response_format` `json_object`",
        "vLLM, llama.cpp, SGLang",
        {"response_format": {"type": "json_object"}},
        "{}",
    ),
    form(
        "`response_format.schema`",
        "llama.cpp",
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
    ),
    form("`structured_outputs.json`", "vLLM", {"structured_outputs": {"json": SCHEMA}}),
    form("`structured_outputs.regex`", "vLLM", {"structured_outputs": {"regex": "[0-9]+"}}, "42"),
    form("`structured_outputs.choice`", "vLLM", {"structured_outputs": {"choice": ["yes", "no"]}}, "yes"),
    form("`structured_outputs.grammar`", "vLLM", {"structured_outputs": {"grammar": GBNF}}, "yes"),
    Feature(
        "structural tags",
        "vLLM, SGLang",
        CHAT,
        {"response_format": {"type": "structural_tag", **TAGS}},
        holds("so <f>7</f>", "so <f>x</f>"),
    ),
    form("`guided_json`", "vLLM", {"guided_json": SCHEMA}),
    form("`guided_regex`", "vLLM", {"guided_regex": "[0-9]+"}, "42"),
    form("`guided_choice`", "vLLM", {"guided_choice": ["yes", "no"]}, "yes"),
    form("`guided_grammar`", "vLLM", {"guided_grammar": GBNF}, "yes"),
    form("`json_schema`", "llama.cpp, SGLang", {"json_schema": SCHEMA}),
    form("`grammar` in GBNF", "llama.cpp", {"grammar": GBNF}, "yes"),
    form("`regex`", "SGLang", {"regex": "[0-9]+"}, "42"),
    form("`ebnf`", "SGLang", {"ebnf": GBNF}, "yes"),
    Feature(
        "two forms at once",
        "vLLM",
        CHAT,
        {"regex": "a", "ebnf": GBNF},
        refused="they contradict each other",
        param="ebnf",
    ),
]
TOOLS = [
    calls(
        "`tool_choice` `auto`",
        "vLLM, llama.cpp, SGLang",
        {},
        lambda a: a.choice["finish_reason"] == "tool_calls",
    ),
    calls(
        "arguments hold to their schema with `auto` too",
        "llama.cpp",
        {},
        holds(CALL, CALL.replace('"Oslo"', "3")),
    ),
    calls("`tool_choice` `required`", "vLLM, llama.cpp, SGLang", {"tool_choice": "required"}, holds(CALL)),
    calls(
        "`tool_choice` of one function",
        "vLLM, SGLang",
        {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
        holds(CALL, CALL.replace("weather", "clock")),
    ),
    calls(
        "`tool_choice` `none`",
        "vLLM, llama.cpp, SGLang",
        {"tool_choice": "none"},
        lambda a: a.said["content"] == CALL,
    ),
    calls(
        "arguments are streamed as they are written",
        "vLLM, llama.cpp, SGLang",
        {"stream": True},
        lambda a: sum("tool_calls" in chunk["choices"][0]["delta"] for chunk in a.body) > 10,
    ),
    calls(
        "a call that is cut off is no content",
        "llama.cpp",
        {"tool_choice": "required", "max_tokens": 20},
        lambda a: a.said["content"] is None and a.choice["finish_reason"] == "length",
    ),
    calls(
        "`parallel_tool_calls`",
        "vLLM, llama.cpp",
        {"tool_choice": "required", "parallel_tool_calls": False},
        holds(CALL, f"{CALL}\n{CALL}"),
    ),
    Feature(
        "`functions` and `function_call`",
        "OpenAI, in the past",
        CHAT,
        {"functions": [WEATHER["function"]], "function_call": {"name": "weather"}},
        lambda a: a.said["function_call"]["name"] == "weather",
        says=CALL,
    ),
]

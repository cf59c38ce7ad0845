"""Interprets `tools`, `tool_choice` and `parallel_tool_calls` of a chat request."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mapping_cache import CanonicalVocabulary
from server.errors import bad_request, echo
from server.protocol.chat import ChatRequest
from server.protocol.tools import FunctionSpec, NamedTool, Tool
from server.tools.call_formats import ToolFormat, find_format
from server.tools.call_reader import ToolCallReader
from server.tools.grammars import json_rule


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The functions that an answer may call, or must call where `demanded`, and the base's format of calls."""

    form: ToolFormat
    functions: tuple[FunctionSpec, ...]
    demanded: bool
    parallel: bool

    def reader(self) -> ToolCallReader:
        """A new reader, for one answer."""
        return ToolCallReader(
            self.form, frozenset(function.name for function in self.functions), parallel=self.parallel
        )

    def shown(self, vocabulary: CanonicalVocabulary) -> dict[int, str]:
        """The special tokens that must be read as text, because they are markers of calls; ids and surfaces."""
        return {token: mark for token, mark in vocabulary.specials.items() if mark in self.form.markers}

    def rules(self, vocabulary: CanonicalVocabulary) -> str:
        """The grammar rule `calls` and the rules that it refers to; raises a 400 that names `tools`."""
        numbers = {mark: token for token, mark in self.shown(vocabulary).items()}

        def mark(surface: str) -> str:
            return f"<[{numbers[surface]}]>" if surface in numbers else json.dumps(surface)

        calls = self.form.grammar([f.name for f in self.functions], mark, parallel=self.parallel)
        return calls + "".join(_arguments(i, function) for i, function in enumerate(self.functions))


def offered_tools(body: ChatRequest) -> tuple[Tool, ...]:
    """The tools that the model sees; raises a 400 where `tools` and `tool_choice` do not fit together."""
    tools = tuple(body.tools or ())
    names = [tool.function.name for tool in tools]
    choice = body.tool_choice
    if len(set(names)) < len(names):
        raise bad_request("`tools` has two functions of one name.", "tools")
    if not tools and choice not in (None, "none", "auto"):
        raise bad_request("`tool_choice` demands a call, but there are no `tools`.", "tool_choice")
    if isinstance(choice, NamedTool) and choice.function.name not in names:
        wanted = echo(repr(choice.function.name))
        raise bad_request(f"`tool_choice` names {wanted}, which is not among the `tools`.", "tool_choice")
    return () if choice == "none" else tools


def plan_tools(body: ChatRequest, tools: tuple[Tool, ...], template: str) -> ToolUse | None:
    """The tool use that a request allows or demands; None without `tools`.

    `template` is the base's chat template. Raises a 400 where it writes calls in an unknown format.
    """
    if not tools:
        return None
    form = find_format(template)
    if form is None:
        raise bad_request(
            "The base's chat template writes calls in a form that cannot be read back here.", "tools"
        )
    choice = body.tool_choice
    functions = tuple(tool.function for tool in tools)
    if isinstance(choice, NamedTool):
        functions = tuple(f for f in functions if f.name == choice.function.name)
    named = isinstance(choice, NamedTool)
    demanded = named or choice == "required"
    return ToolUse(form, functions, demanded, parallel=body.parallel_tool_calls is not False and not named)


def _arguments(number: int, function: FunctionSpec) -> str:
    schema = {"type": "object", **(function.parameters or {"properties": {}, "additionalProperties": False})}
    if schema["type"] != "object":
        raise bad_request(f"The `parameters` of {function.name!r} must be of the type 'object'.", "tools")
    return json_rule(f"arguments_{number}", schema, strict=bool(function.strict), field="tools")

"""Interprets `tools`, `tool_choice` and `parallel_tool_calls` of a chat request."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from mapping_cache import CanonicalVocabulary
from server.errors import bad_request, echo
from server.protocol.chat import ChatRequest
from server.protocol.tools import AllowedTools, FunctionSpec, NamedTool, Tool, ToolChoice
from server.tools.call_formats import Mark, ToolFormat, find_format
from server.tools.call_reader import ToolCallReader
from server.tools.free_text import text_rules, token_ranges
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
            self.form,
            [function.name for function in self.functions],
            parallel=self.parallel,
            held=True,
            demanded=self.demanded,
        )

    def shown(self, vocabulary: CanonicalVocabulary) -> dict[int, str]:
        """The special tokens that must be read as text, because they are markers of calls; ids and surfaces."""
        return {token: mark for token, mark in vocabulary.specials.items() if mark in self.form.markers}

    def rules(self, vocabulary: CanonicalVocabulary) -> str:
        """The grammar rule `calls` and the rules that it refers to; raises a 400 that names `tools`."""
        names = [function.name for function in self.functions]
        return self.form.grammar(names, self._mark(vocabulary), parallel=self.parallel) + self._arguments()

    def free_rules(
        self, vocabulary: CanonicalVocabulary, end_tokens: Collection[int], *, loose: bool = False
    ) -> str:
        """The grammar rule `free`: text, in which a call must go on as in `rules` from its opening mark on.

        `loose`: arguments may be any object. Raises a 400 that names `tools`.
        """
        shown = self.shown(vocabulary)
        # Text may have every other special token, as it may without tools.
        others = token_ranges(
            token
            for token, content in enumerate(vocabulary.tokens)
            if content is None and token not in shown and token not in end_tokens
        )
        names = [function.name for function in self.functions]
        free = self.form.free_grammar(names, self._mark(vocabulary), others, parallel=self.parallel)
        return free + text_rules(others) + self._arguments(loose=loose)

    @property
    def strict(self) -> bool:
        """Whether a function's schema must be enforced."""
        return any(function.strict for function in self.functions)

    def _mark(self, vocabulary: CanonicalVocabulary) -> Mark:
        numbers = {mark: token for token, mark in self.shown(vocabulary).items()}

        def mark(surface: str) -> str:
            return f"<[{numbers[surface]}]>" if surface in numbers else json.dumps(surface)

        return mark

    def _arguments(self, *, loose: bool = False) -> str:
        return "".join(_arguments(i, function, loose=loose) for i, function in enumerate(self.functions))


def offered_tools(body: ChatRequest) -> tuple[Tool, ...]:
    """The tools that the model sees; raises a 400 where `tools` and `tool_choice` do not fit together."""
    tools = tuple(body.offered)
    names = [tool.function.name for tool in tools]
    choice = body.choice
    if body.functions and body.tools:
        raise bad_request("`functions` and `tools` are one setting; give one.", "functions")
    if len(set(names)) < len(names):
        raise bad_request("`tools` has two functions of one name.", "tools")
    if not tools and choice not in (None, "none", "auto"):
        raise bad_request("`tool_choice` demands a call, but there are no `tools`.", "tool_choice")
    unknown = next((name for name in _allowed_names(choice) or () if name not in names), None)
    if unknown is not None:
        raise bad_request(
            f"`tool_choice` names {echo(repr(unknown))}, which is not among the `tools`.", "tool_choice"
        )
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
    choice = body.choice
    named = isinstance(choice, NamedTool)
    allowed = _allowed_names(choice)
    functions = tuple(tool.function for tool in tools if allowed is None or tool.function.name in allowed)
    demanded = named or choice == "required"
    if isinstance(choice, AllowedTools):
        demanded = choice.allowed_tools.mode == "required"
    parallel = body.parallel_tool_calls is not False and not body.functions
    return ToolUse(form, functions, demanded, parallel=parallel and not named)


def _allowed_names(choice: ToolChoice) -> list[str] | None:
    """The functions that a choice names; None where it names none."""
    if isinstance(choice, NamedTool):
        return [choice.function.name]
    if isinstance(choice, AllowedTools):
        return [tool.function.name for tool in choice.allowed_tools.tools]
    return None


def _arguments(number: int, function: FunctionSpec, *, loose: bool) -> str:
    if loose:
        return json_rule(f"arguments_{number}", {"type": "object"}, strict=False, field="tools")
    schema = {"type": "object", **(function.parameters or {"properties": {}, "additionalProperties": False})}
    if schema["type"] != "object":
        raise bad_request(f"The `parameters` of {function.name!r} must be of the type 'object'.", "tools")
    return json_rule(f"arguments_{number}", schema, strict=bool(function.strict), field="tools")

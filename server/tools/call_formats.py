"""How models write the calls of functions: what demands a call in that form, and what reads one back.

Which form a base writes is told by its chat template, which shows it past calls in the same form.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

Mark = Callable[[str], str]
"""From a marker such as `<tool_call>` to what stands for it in a grammar: a string, or a special token's number."""

_DECODER = json.JSONDecoder()
_NAME = re.compile(r"[a-zA-Z0-9_.-]+")


class NotACallError(ValueError):
    """What began like a call is none."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function; `arguments` is JSON text."""

    name: str
    arguments: str


class ToolFormat(Protocol):
    """One way of writing calls."""

    @property
    def openings(self) -> tuple[str, ...]:
        """What calls begin with."""

    @property
    def anywhere(self) -> bool:
        """Whether text may go before calls."""

    @property
    def between(self) -> str:
        """The characters that stand between calls and mean nothing."""

    @property
    def markers(self) -> frozenset[str]:
        """What may be special tokens and still is text that has to be read."""

    def grammar(self, names: Sequence[str], mark: Mark, *, parallel: bool) -> str:
        """The rule `calls`: at least one call. `arguments_0` and so on are the rules of the functions' arguments."""

    def read(self, text: str, names: Collection[str], *, final: bool) -> tuple[list[Call], str] | None:
        """The calls that `text`, which starts with an opening, begins with, and the rest; None: more is needed.

        Raises NotACallError.
        """

    def call_id(self) -> str:
        """A new call's id."""


def find_format(template: str) -> ToolFormat | None:
    """The form that a chat template writes calls in, or None where it is none of those known here."""
    if "[TOOL_CALLS]" in template:
        return MistralCalls(named="[ARGS]" in template)
    if "<tool_call>" in template and "<function=" not in template:
        return HermesCalls()
    if "<|python_tag|>" in template or '"parameters"' in template:
        return LlamaCalls()
    return None


class HermesCalls:
    """`<tool_call>`, an object with `name` and `arguments`, `</tool_call>`: Hermes, Qwen and others."""

    openings: tuple[str, ...] = ("<tool_call>",)
    anywhere = True
    between = " \n\r\t"
    markers = frozenset({"<tool_call>", "</tool_call>"})

    def grammar(self, names: Sequence[str], mark: Mark, *, parallel: bool) -> str:
        """Calls stand on lines of their own."""
        more = r' ("\n" call)*' if parallel else ""
        body = _objects(names, "arguments")
        return (
            f'calls: call{more}\ncall: {mark("<tool_call>")} "\\n" body "\\n" {mark("</tool_call>")}\n{body}'
        )

    def read(self, text: str, names: Collection[str], *, final: bool) -> tuple[list[Call], str] | None:
        """The closing tag may be missing at the very end."""
        found = _decode(text.removeprefix("<tool_call>"), final)
        if found is None:
            return None
        rest = found[1].lstrip()
        if not final and len(rest) < len("</tool_call>") and "</tool_call>".startswith(rest):
            return None
        return [_call(found[0], names)], rest.removeprefix("</tool_call>")

    def call_id(self) -> str:
        """As OpenAI's."""
        return f"call_{uuid.uuid4().hex[:24]}"


class LlamaCalls:
    """An object with `name` and `parameters` as the whole answer, perhaps after `<|python_tag|>`: Llama 3."""

    openings: tuple[str, ...] = ("<|python_tag|>", "{")
    anywhere = False
    between = "; \n\r\t"
    markers = frozenset({"<|python_tag|>"})

    def grammar(self, names: Sequence[str], mark: Mark, *, parallel: bool) -> str:
        """One call: these models, and their templates, know no more at a time."""
        return f"calls: body\n{_objects(names, 'parameters')}"

    def read(self, text: str, names: Collection[str], *, final: bool) -> tuple[list[Call], str] | None:
        """One object; semicolons may part it from the next."""
        found = _decode(text.removeprefix("<|python_tag|>"), final)
        return None if found is None else ([_call(found[0], names)], found[1])

    def call_id(self) -> str:
        """As OpenAI's."""
        return f"call_{uuid.uuid4().hex[:24]}"


@dataclass(frozen=True, slots=True)
class MistralCalls:
    """`[TOOL_CALLS]` and a list of objects, or (`named`) the name, `[ARGS]` and the arguments: Mistral."""

    named: bool = False
    openings: tuple[str, ...] = ("[TOOL_CALLS]",)
    anywhere: bool = True
    between: str = " \n\r\t"
    markers: frozenset[str] = frozenset({"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"})

    def grammar(self, names: Sequence[str], mark: Mark, *, parallel: bool) -> str:
        """In whichever of the two forms the template writes."""
        opening = mark("[TOOL_CALLS]")
        if self.named:
            calls = " | ".join(
                f'{opening} "{name}" {mark("[ARGS]")} arguments_{i}' for i, name in enumerate(names)
            )
            return f"calls: call{'+' if parallel else ''}\ncall: {calls}\n"
        more = ' (", " body)*' if parallel else ""
        return f'calls: {opening} " [" body{more} "]"\n{_objects(names, "arguments")}'

    def read(self, text: str, names: Collection[str], *, final: bool) -> tuple[list[Call], str] | None:
        """Both forms are read, whichever the template writes."""
        body = text.removeprefix("[TOOL_CALLS]").lstrip()
        name = _NAME.match(body)
        if name is None:
            found = _decode(body, final)
            if found is None:
                return None
            items = found[0] if isinstance(found[0], list) and found[0] else [found[0]]
            return [_call(item, names) for item in items], found[1]
        brace = body.find("{")
        found = None if brace < 0 else _decode(body[brace:], final)
        if found is None:
            if final:
                raise NotACallError("a name without arguments")
            return None
        return [_call({"name": name.group(), "arguments": found[0]}, names)], found[1]

    def call_id(self) -> str:
        """Nine letters or digits, which is what these templates insist on."""
        return uuid.uuid4().hex[:9]


def _objects(names: Sequence[str], key: str) -> str:
    """The rule `body`: one object with a function's name and arguments."""
    beginnings = [json.dumps(f'{{"name": "{name}", "{key}": ') for name in names]
    ways = " | ".join(f'{beginning} arguments_{i} "}}"' for i, beginning in enumerate(beginnings))
    return f"body: {ways}\n"


def _decode(text: str, final: bool) -> tuple[object, str] | None:
    """The JSON value that `text` begins with, and the rest; None while it may still be incomplete."""
    body = text.lstrip()
    try:
        value, end = _DECODER.raw_decode(body)
    except (json.JSONDecodeError, RecursionError):
        if final:
            raise NotACallError("no JSON follows") from None
        return None
    return value, body[end:]


def _call(value: object, names: Collection[str]) -> Call:
    if not isinstance(value, dict) or value.get("name") not in names:
        raise NotACallError("it names no function that was offered")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        # Some write the arguments as JSON text within the JSON.
        found = _decode(arguments, final=True)
        arguments = None if found is None else found[0]
    if not isinstance(arguments, dict):
        raise NotACallError("its arguments are no object")
    return Call(value["name"], json.dumps(arguments, ensure_ascii=False))

"""The formats in which models write function calls: each has a grammar that demands calls and a parser for them.

A base's chat template tells its format, because it writes past calls in the same one.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.tools.free_text import any_text, free_rules

Mark = Callable[[str], str]
"""Maps a marker such as `<tool_call>` to its form in a grammar: a string, or a special token's id."""

_DECODER = json.JSONDecoder()
_NAME = re.compile(r"[a-zA-Z0-9_.-]+")


class NotACallError(ValueError):
    """A text that begins like a call is not one."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function; `arguments` is JSON text."""

    name: str
    arguments: str


class ToolFormat(Protocol):
    """One way of writing calls."""

    @property
    def openings(self) -> tuple[str, ...]:
        """The strings with which calls begin."""

    @property
    def anywhere(self) -> bool:
        """Whether text may precede calls."""

    @property
    def between(self) -> str:
        """The characters that separate calls and are dropped."""

    @property
    def markers(self) -> frozenset[str]:
        """Markers of calls. Where one is a special token, it must be read as text all the same."""

    @property
    def closing(self) -> tuple[str, ...]:
        """The strings that follow a call's arguments, white space between them."""

    def grammar(self, names: Sequence[str], mark: Mark, *, parallel: bool) -> str:
        """The grammar rule `calls`: one call, or with `parallel` one or more.

        It refers to the rules `arguments_0`, `arguments_1` ... for the arguments of each function in `names`.
        """

    def free_grammar(self, names: Sequence[str], mark: Mark, others: str, *, parallel: bool) -> str:
        """The grammar rule `free`: any text, in which a call that has begun must go on as in `calls`.

        `others` is the grammar's form of the special tokens that text may contain.
        """

    def beginnings(self, names: Iterable[str]) -> dict[str, str]:
        """The function that each beginning of a call, up to its arguments, names: as `grammar` has them written."""

    def read(self, text: str, names: Collection[str], *, final: bool) -> tuple[list[Call], str] | None:
        """Parses the calls at the start of `text`, which begins with an opening; returns them and the rest of the text.

        Returns None where more text is needed; with `final` no more will come. Raises NotACallError where the text is
        not a call, or names no function in `names`.
        """

    def call_id(self) -> str:
        """A new id for a call."""


def find_format(template: str) -> ToolFormat | None:
    """The format in which a chat template writes calls; None where it is none of these."""
    if "[TOOL_CALLS]" in template:
        return MistralCalls(named="[ARGS]" in template)
    if "<tool_call>" in template and "<function=" not in template:
        return HermesCalls()
    if "<|python_tag|>" in template or '"parameters"' in template:
        return LlamaCalls()
    return None


class HermesCalls:
    """Hermes, Qwen and others: `<tool_call>`, an object with `name` and `arguments`, `</tool_call>`."""

    openings: tuple[str, ...] = ("<tool_call>",)
    anywhere = True
    between = " \n\r\t"
    markers = frozenset({"<tool_call>", "</tool_call>"})
    closing = ("}", "</tool_call>")

    def grammar(self, names: Sequence[str], mark: Mark, *, parallel: bool) -> str:
        """Each call, and its object, on lines of their own."""
        more = r' ("\n" call)*' if parallel else ""
        return f"calls: call{more}\ncall: {mark('<tool_call>')} written\n{self._written(names, mark)}"

    def free_grammar(self, names: Sequence[str], mark: Mark, others: str, *, parallel: bool) -> str:
        """Calls anywhere in the text."""
        return free_rules(mark("<tool_call>"), others, parallel=parallel) + self._written(names, mark)

    def beginnings(self, names: Iterable[str]) -> dict[str, str]:
        """The tag, a new line, and the object up to its arguments."""
        return {f"<tool_call>\n{_beginning(name, 'arguments')}": name for name in names}

    def _written(self, names: Sequence[str], mark: Mark) -> str:
        body = _objects(names, "arguments")
        return f'written: "\\n" body "\\n" {mark("</tool_call>")}\n{body}'

    def read(self, text: str, names: Collection[str], *, final: bool) -> tuple[list[Call], str] | None:
        """One call; the closing tag may be missing."""
        found = _decode(text.removeprefix("<tool_call>"), final)
        if found is None:
            return None
        rest = found[1].lstrip()
        if not final and len(rest) < len("</tool_call>") and "</tool_call>".startswith(rest):
            return None
        return [_call(found[0], names)], rest.removeprefix("</tool_call>")

    def call_id(self) -> str:
        """An id like OpenAI's: `call_` and 24 hexadecimal digits."""
        return f"call_{uuid.uuid4().hex[:24]}"


class LlamaCalls:
    """Llama 3: the whole answer is an object with `name` and `parameters`, perhaps after `<|python_tag|>`."""

    openings: tuple[str, ...] = ("<|python_tag|>", "{")
    anywhere = False
    between = "; \n\r\t"
    markers = frozenset({"<|python_tag|>"})
    closing = ("}",)

    def grammar(self, names: Sequence[str], mark: Mark, *, parallel: bool) -> str:
        """One call, even with `parallel`: these models and their templates support no more at a time."""
        return f"calls: body\n{_objects(names, 'parameters')}"

    def free_grammar(self, names: Sequence[str], mark: Mark, others: str, *, parallel: bool) -> str:
        """A call at the beginning of the text. An object in another form stays text."""
        ways = [f'begun_{i} arguments_{i} "}}"' for i in range(len(names))]
        begun = "".join(
            f"begun_{i}[lazy]: {json.dumps(_beginning(name, 'parameters'))}\n" for i, name in enumerate(names)
        )
        tag = mark("<|python_tag|>")
        if tag.startswith("<["):
            ways.append(f"{tag} body")
        return f"free: {any_text(others)} | {' | '.join(ways)}\n{begun}{_objects(names, 'parameters')}"

    def beginnings(self, names: Iterable[str]) -> dict[str, str]:
        """The object up to its arguments, perhaps after the tag."""
        return {
            f"{tag}{_beginning(name, 'parameters')}": name for name in names for tag in ("", "<|python_tag|>")
        }

    def read(self, text: str, names: Collection[str], *, final: bool) -> tuple[list[Call], str] | None:
        """One call; semicolons may separate it from the next."""
        found = _decode(text.removeprefix("<|python_tag|>"), final)
        return None if found is None else ([_call(found[0], names)], found[1])

    def call_id(self) -> str:
        """An id like OpenAI's: `call_` and 24 hexadecimal digits."""
        return f"call_{uuid.uuid4().hex[:24]}"


@dataclass(frozen=True, slots=True)
class MistralCalls:
    """Mistral: `[TOOL_CALLS]` and a list of objects, or with `named` a name, `[ARGS]` and the arguments."""

    named: bool = False
    openings: tuple[str, ...] = ("[TOOL_CALLS]",)
    anywhere: bool = True
    between: str = " \n\r\t"
    markers: frozenset[str] = frozenset({"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"})

    @property
    def closing(self) -> tuple[str, ...]:
        """The end of the object and of the list; nothing after named calls."""
        return () if self.named else ("}", "]")

    def grammar(self, names: Sequence[str], mark: Mark, *, parallel: bool) -> str:
        """Calls in the one of the two forms that the template writes."""
        more = "+" if self.named and parallel else ""
        written = self._written(names, mark, parallel)
        return f"calls: call{more}\ncall: {mark('[TOOL_CALLS]')} written\n{written}"

    def free_grammar(self, names: Sequence[str], mark: Mark, others: str, *, parallel: bool) -> str:
        """Calls anywhere in the text."""
        free = free_rules(mark("[TOOL_CALLS]"), others, parallel=parallel)
        return free + self._written(names, mark, parallel)

    def beginnings(self, names: Iterable[str]) -> dict[str, str]:
        """A name, or the first object of the list, up to the arguments. Later objects of a list are read whole."""
        if self.named:
            return {f"[TOOL_CALLS]{name}[ARGS]": name for name in names}
        return {f"[TOOL_CALLS] [{_beginning(name, 'arguments')}": name for name in names}

    def _written(self, names: Sequence[str], mark: Mark, parallel: bool) -> str:
        if self.named:
            ways = " | ".join(f'"{name}" {mark("[ARGS]")} arguments_{i}' for i, name in enumerate(names))
            return f"written: {ways}\n"
        more = ' (", " body)*' if parallel else ""
        return f'written: " [" body{more} "]"\n{_objects(names, "arguments")}'

    def read(self, text: str, names: Collection[str], *, final: bool) -> tuple[list[Call], str] | None:
        """All calls of a list, or one named call: both forms are parsed, whichever the template writes."""
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
        """Nine letters or digits, because these templates refuse any other id."""
        return uuid.uuid4().hex[:9]


def _objects(names: Sequence[str], key: str) -> str:
    """The grammar rule `body`: one object with a function's name and its arguments under `key`."""
    beginnings = [json.dumps(_beginning(name, key)) for name in names]
    ways = " | ".join(f'{beginning} arguments_{i} "}}"' for i, beginning in enumerate(beginnings))
    return f"body: {ways}\n"


def _beginning(name: str, key: str) -> str:
    """The object of a call, up to the arguments under `key`."""
    return f'{{"name": "{name}", "{key}": '


def _decode(text: str, final: bool) -> tuple[object, str] | None:
    """The JSON value at the start of `text`, and the rest of the text; None while the value may be incomplete."""
    body = text.lstrip()
    try:
        value, end = _DECODER.raw_decode(body)
    except (ValueError, RecursionError):
        # Not only JSONDecodeError: an integer of more than 4,300 digits is a plain ValueError.
        if final:
            raise NotACallError("no JSON follows") from None
        return None
    return value, body[end:]


def _call(value: object, names: Collection[str]) -> Call:
    """The call that a decoded value describes. The value is a model's, so any part of it may be of any type."""
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str) or name not in names:
        raise NotACallError("it names no function that was offered")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        # Some models write the arguments as a string of JSON inside the JSON.
        found = _decode(arguments, final=True)
        arguments = None if found is None else found[0]
    if not isinstance(arguments, dict):
        raise NotACallError("its arguments are no object")
    return Call(name, _json_text(arguments))


def _json_text(arguments: dict[str, object]) -> str:
    """The arguments as JSON text that any client can parse; raises NotACallError where there is none."""
    try:
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            # Half of a surrogate pair cannot be sent as UTF-8, but its escape can.
            text = json.dumps(arguments)
    except (ValueError, RecursionError):
        # The decoder reads NaN, infinities and numbers like 1e999, which JSON does not have.
        raise NotACallError("its arguments cannot be written as JSON") from None
    return text

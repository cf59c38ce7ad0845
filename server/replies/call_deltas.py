"""What an event of a chat stream adds to the calls of its answer."""

from __future__ import annotations

from collections.abc import Iterable

from server.protocol.tools import FunctionDelta, ToolCallDelta
from server.replies.answer_parts import AnswerPart, CallArguments, CallStart


def call_deltas(parts: Iterable[AnswerPart]) -> list[ToolCallDelta]:
    """One delta for each call that `parts` begin or add to."""
    deltas: dict[int, ToolCallDelta] = {}
    for part in parts:
        if isinstance(part, CallStart):
            function = FunctionDelta(name=part.name, arguments="")
            deltas[part.index] = ToolCallDelta(
                index=part.index, id=part.id, type="function", function=function
            )
        elif isinstance(part, CallArguments):
            before = deltas.get(part.index)
            name = None if before is None else before.function.name
            text = part.text if before is None else before.function.arguments + part.text
            function = FunctionDelta(name=name, arguments=text)
            deltas[part.index] = (
                ToolCallDelta(index=part.index, function=function)
                if before is None
                else before.model_copy(update={"function": function})
            )
    return list(deltas.values())

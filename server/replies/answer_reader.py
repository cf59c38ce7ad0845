"""Reads the text of a chat answer as content and calls of functions."""

from __future__ import annotations

from server.replies.answer_parts import AnswerPart, CallArguments, CallStart, Content, Reasoning
from server.replies.sequence_text import ClientFinish
from server.replies.thoughts import ThoughtReader
from server.tools.call_formats import Call
from server.tools.call_reader import CallBegun, Part
from server.tools.tool_use import ToolUse


class AnswerReader:
    """Reads one answer, whole or piece by piece. Without `tools` there are no calls in it.

    `thinking`: whether it begins within thoughts; None where thoughts are content.
    """

    def __init__(self, tools: ToolUse | None, thinking: bool | None = None) -> None:
        self._thoughts = None if thinking is None else ThoughtReader(inside=thinking)
        self._tools = tools
        self._reader = None if tools is None else tools.reader()
        self._calls = 0

    def read(self, text: str, *, final: bool) -> list[AnswerPart]:
        """The parts that are certain after `text`. `final`: no more text will come."""
        found: list[AnswerPart] = []
        if self._thoughts is not None:
            thoughts, text = self._thoughts.push(text, final=final)
            found += [Reasoning(thoughts)] if thoughts else []
        if self._tools is None or self._reader is None:
            return [*found, Content(text)] if text else found
        for part in self._reader.push(text) + (self._reader.finish() if final else []):
            found += self._parts(self._tools, part)
        return found

    def finish_reason(self, finish: ClientFinish | None) -> str | None:
        """The reason for the client: `tool_calls` in place of `stop` where the answer has calls."""
        return "tool_calls" if finish == "stop" and self._calls else finish

    @property
    def demands_calls(self) -> bool:
        """Whether the answer must consist of calls."""
        return self._tools is not None and self._tools.demanded

    def _parts(self, tools: ToolUse, part: Part) -> list[AnswerPart]:
        if isinstance(part, str):
            return [Content(part)]
        if not isinstance(part, Call | CallBegun):
            return [CallArguments(self._calls - 1, part.arguments)]
        self._calls += 1
        begun = CallStart(self._calls - 1, tools.form.call_id(), part.name)
        return [begun, CallArguments(begun.index, part.arguments)] if isinstance(part, Call) else [begun]

"""Reads the text of a chat answer as content and calls of functions."""

from __future__ import annotations

from server.protocol.tools import FunctionReply, ToolCallReply
from server.replies.sequence_text import ClientFinish
from server.tools.tool_use import ToolUse


class AnswerReader:
    """Reads one answer, whole or piece by piece. Without `tools` all of it is content."""

    def __init__(self, tools: ToolUse | None) -> None:
        self._tools = tools
        self._reader = None if tools is None else tools.reader()
        self._calls = 0

    def read(self, text: str, *, final: bool) -> tuple[str, list[ToolCallReply]]:
        """The content and the calls that are certain after `text`. `final`: no more text will come."""
        if self._tools is None or self._reader is None:
            return text, []
        parts = self._reader.push(text) + (self._reader.finish() if final else [])
        calls: list[ToolCallReply] = []
        for part in parts:
            if not isinstance(part, str):
                function = FunctionReply(name=part.name, arguments=part.arguments)
                call_id = self._tools.form.call_id()
                calls.append(ToolCallReply(index=self._calls, id=call_id, function=function))
                self._calls += 1
        return "".join(part for part in parts if isinstance(part, str)), calls

    def finish_reason(self, finish: ClientFinish | None) -> str | None:
        """The reason for the client: `tool_calls` in place of `stop` where the answer has calls."""
        return "tool_calls" if finish == "stop" and self._calls else finish

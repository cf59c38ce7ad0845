"""A chat answer's text as what the reply says of it: content, and calls of functions where the request offers some."""

from __future__ import annotations

from server.protocol.tools import FunctionReply, ToolCallReply
from server.replies.sequences import ClientFinish
from server.tools.use import ToolUse


class AnswerReader:
    """Reads one answer, whole or piece by piece."""

    def __init__(self, tools: ToolUse | None) -> None:
        self._tools = tools
        self._reader = None if tools is None else tools.reader()
        self._calls = 0

    def read(self, text: str, *, final: bool) -> tuple[str, list[ToolCallReply]]:
        """The content and the calls that are certain now that `text` has come; `final`: nothing more will."""
        if self._tools is None or self._reader is None:
            return text, []
        parts = self._reader.push(text) + (self._reader.finish() if final else [])
        calls: list[ToolCallReply] = []
        for part in parts:
            if not isinstance(part, str):
                function = FunctionReply(name=part.name, arguments=part.arguments)
                name = self._tools.form.call_id()
                calls.append(ToolCallReply(index=self._calls, id=name, function=function))
                self._calls += 1
        return "".join(part for part in parts if isinstance(part, str)), calls

    def finish_reason(self, finish: ClientFinish | None) -> str | None:
        """`tool_calls` where the answer has ended by itself and has some."""
        return "tool_calls" if finish == "stop" and self._calls else finish

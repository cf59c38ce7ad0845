"""The parts of a chat answer, as its text is read: content, and calls of functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Content:
    """More of the text that is for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of the thoughts before the text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins. `index`: its place in the answer, from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments, which are JSON text."""

    index: int
    text: str


AnswerPart = Content | Reasoning | CallStart | CallArguments


@dataclass(slots=True)
class WholeCall:
    """A call with all of its arguments."""

    id: str
    name: str
    arguments: str = ""


@dataclass(slots=True)
class WholeAnswer:
    """All parts of an answer, joined."""

    content: str = ""
    reasoning: str = ""
    calls: list[WholeCall] = field(default_factory=list)

    @classmethod
    def of(cls, parts: Iterable[AnswerPart]) -> WholeAnswer:
        """The answer that consists of `parts`."""
        answer = cls()
        for part in parts:
            if isinstance(part, Content):
                answer.content += part.text
            elif isinstance(part, Reasoning):
                answer.reasoning += part.text
            elif isinstance(part, CallStart):
                answer.calls.append(WholeCall(part.id, part.name))
            else:
                answer.calls[part.index].arguments += part.text
        return answer

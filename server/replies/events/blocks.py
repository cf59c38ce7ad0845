"""The parts of an answer as blocks, each of which begins, gains text, and ends before the next one begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from server.replies.answer_parts import AnswerPart, CallArguments, CallStart, Content, Reasoning

Kind = Literal["thoughts", "text", "call"]


@dataclass(slots=True)
class Block:
    """One block of an answer, with its text so far; of a call, the text is its arguments."""

    index: int
    kind: Kind
    id: str = ""
    name: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class BlockEvent:
    """A block begins, gains `text`, or ends."""

    what: Literal["begin", "text", "end"]
    block: Block
    text: str = ""


class Blocks:
    """The blocks of one answer, in order."""

    def __init__(self) -> None:
        self.all: list[Block] = []
        self._open = False

    def add(self, parts: Iterable[AnswerPart]) -> Iterator[BlockEvent]:
        """The events of further parts."""
        for part in parts:
            if isinstance(part, CallStart):
                yield from self._begin("call", part.id, part.name)
                continue
            kind: Kind = "call"
            if isinstance(part, Content | Reasoning):
                kind = "text" if isinstance(part, Content) else "thoughts"
            if not (self._open and self.all[-1].kind == kind) and not isinstance(part, CallArguments):
                yield from self._begin(kind)
            self.all[-1].text += part.text
            yield BlockEvent("text", self.all[-1], part.text)

    def end(self) -> Iterator[BlockEvent]:
        """The event that ends the last block, if one is open."""
        if self._open:
            self._open = False
            yield BlockEvent("end", self.all[-1])

    def _begin(self, kind: Kind, call_id: str = "", name: str = "") -> Iterator[BlockEvent]:
        yield from self.end()
        self.all.append(Block(len(self.all), kind, call_id, name))
        self._open = True
        yield BlockEvent("begin", self.all[-1])

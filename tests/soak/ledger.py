"""The ledger of a soak test: reference replies, the lifetimes of adapter versions, and the faults found."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """A greedy request: to `/v1/chat/completions` if `chat`, otherwise to `/v1/completions`."""

    base: str
    text: str
    chat: bool
    tokens: int

    def body(self, adapter: str | None) -> dict[str, Any]:
        """The request's JSON body; `adapter` is None for the base alone."""
        prompt = (
            {"messages": [{"role": "user", "content": self.text}]} if self.chat else {"prompt": self.text}
        )
        model = self.base if adapter is None else f"{self.base}:{adapter}"
        return {"model": model, "max_tokens": self.tokens, "temperature": 0, "ignore_eos": True, **prompt}

    @property
    def path(self) -> str:
        """The path of the request."""
        return "/v1/chat/completions" if self.chat else "/v1/completions"


@dataclass(slots=True)
class Life:
    """The time in which a version could steer: from the start of its loading until its end was confirmed."""

    name: str
    version: str
    began: float
    ended: float | None = None


@dataclass
class Ledger:
    """The records of a soak test.

    `alone`: the reply of each version (None: the base) to each question, sent alone. `close`: questions whose reply
    has a close choice. `lives`: when each version was loaded. `wrong`: faults. `seen`: counts of events.
    """

    alone: dict[tuple[Question, str | None], str] = field(default_factory=dict)
    close: set[tuple[Question, str | None]] = field(default_factory=set)
    lives: list[Life] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def begin(self, name: str, version: str, began: float) -> None:
        """Records that a version was loaded under a name, which ends the version before it."""
        self.end(name, but=version)
        if not any(
            life.ended is None and (life.name, life.version) == (name, version) for life in self.lives
        ):
            self.lives.append(Life(name, version, began))

    def end(self, name: str, but: str | None = None) -> None:
        """Records that all versions of the name have ended, except `but`."""
        for life in self.lives:
            if life.name == name and life.ended is None and life.version != but:
                life.ended = time.monotonic()

    def check(
        self,
        question: Question,
        adapter: str | None,
        reply: dict[str, Any],
        text: str,
        sent: float,
        *,
        cut_short: bool = False,
    ) -> None:
        """Compares a reply, asked for at `sent` and received now, with its version's reply when alone.

        Of a reply that a fault has `cut_short`, `text` is the beginning.
        """
        steering = reply["steering"]
        version: str | None = None if steering is None else steering[0]["version"]
        if (steering is None) != (adapter is None) or (adapter and steering[0]["adapter"] != adapter):
            self.wrong.append(f"{adapter} was asked for and {steering} steered")
            return
        if adapter and version and not self._could_be(adapter, version, sent):
            self.wrong.append(f"{adapter}@{version} steered a request while it was not loaded")
        expected = self.alone.get((question, version))
        if (question, version) in self.close:
            self.seen["too close to call"] += 1
            return
        if expected is None:
            self.wrong.append(f"unknown version {version} of {adapter}")
        elif not (expected.startswith(text) if cut_short else text == expected):
            self.wrong.append(f"{question} by {adapter}@{version}: {text!r}, alone {expected!r}")
        self.seen["checked"] += 1

    def _could_be(self, name: str, version: str, sent: float) -> bool:
        return any(
            life.name == name and life.version == version and (life.ended is None or life.ended >= sent)
            for life in self.lives
        )

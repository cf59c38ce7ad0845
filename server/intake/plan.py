"""A request that has been checked and tokenized, ready for the engine."""

from __future__ import annotations

from dataclasses import dataclass

from server.served_base import ServedBase
from server.tools.tool_use import ToolUse
from steering.engine.constraint import Constraint
from steering.engine.request import SamplingParams
from steering.specs import SteeringSpec


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenized prompt; `text` is the client's own text for an echo, None where the client sent token ids."""

    ids: tuple[int, ...]
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of one HTTP request: `width` sequences for each prompt, of which the best `n` are returned.

    `thinking`: whether the answer begins within thoughts; None where thoughts are not told from text. `opening` is
    text that the answer begins with although nothing generates it. `constraint_field` is the request's field that the
    constraint comes from.
    """

    base: ServedBase
    prompts: tuple[Prompt, ...]
    n: int
    width: int
    sampling: SamplingParams
    steering: tuple[SteeringSpec, ...]
    stops: tuple[str, ...] = ()
    include_stop: bool = False
    show_specials: bool = False
    echo: bool = False
    logprobs: bool = False
    constraint: Constraint | None = None
    constraint_field: str = ""
    tools: ToolUse | None = None
    thinking: bool | None = None
    opening: str = ""

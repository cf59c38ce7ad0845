"""A step's report: its time by phase, and the requests that ran for the first time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal, get_args

Phase = Literal["base", "steering", "fuse_sample", "host"]
PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(slots=True)
class StepReport:
    """Filled while a step runs, and constant afterwards.

    `seconds`: wall time of the engine's thread by phase. `base` and `steering` are the models' passes, `fuse_sample`
    is everything between their logits and the drawn tokens, `host` is the rest (scheduling, outputs, bookkeeping). A
    GPU's work counts in the phase in which the thread waits for it. `started`: ids of the requests that ran for the
    first time.
    """

    seconds: dict[Phase, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    started: tuple[str, ...] = ()
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, phase: Phase) -> None:
        """Add the time since the last lap (or since the report was made) to a phase."""
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now

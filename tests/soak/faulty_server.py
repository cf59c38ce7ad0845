"""A server in which calls fail at random, for the soak test: `python -m tests.soak.faulty_server SETTINGS`.

Like `tests.served`, and two questions more: `faults` starts the faults, `quiet` ends them. Both answer with the numbers
of faults so far.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any
from unittest import mock

from server.engines.restarts import MAX_RESTARTS, RESTART_SECONDS
from server.service import Service
from steering.engine.engine import Engine
from steering.model.pages import OutOfPagesError
from tests.served import main
from tests.steering.fault_injection import Injector

SHARE = 0.0002
"""The share of the calls for rows that raise."""
SECONDS_BETWEEN_STEPS = RESTART_SECONDS / MAX_RESTARTS
"""The mean time between two steps of one engine that raise. An engine that restarts more often is given up."""


class RowInjector(Injector):
    """An injector that is on only while an engine works for its rows: loading an adapter calls the same functions."""

    def __init__(self, seed: int, share: float) -> None:
        self._switch = False
        self._thread = threading.local()
        super().__init__(seed, share)

    @property
    def on(self) -> bool:
        """Whether a call of this thread may raise."""
        return self._switch and getattr(self._thread, "in_rows", False)

    @on.setter
    def on(self, on: bool) -> None:
        self._switch = on

    @property
    def switched_on(self) -> bool:
        """Whether calls for rows may raise."""
        return self._switch

    def within(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function during which calls may raise."""

        @wraps(function)
        def for_rows(*args: Any, **options: Any) -> Any:
            self._thread.in_rows = True
            try:
                return function(*args, **options)
            finally:
                self._thread.in_rows = False

        return for_rows


class FaultySteps:
    """Raises in the base's pass of a step, at most `MAX_RESTARTS` times in `RESTART_SECONDS`, while it is on."""

    def __init__(self, injector: RowInjector, seed: int) -> None:
        self._injector = injector
        self._random = random.Random(seed)
        self._next: dict[int, float] = {}
        self.raised = 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`Engine.step`, of which one in a while raises in the middle."""

        @wraps(function)
        def step(engine: Any) -> Any:
            if not self._injector.switched_on:
                return function(engine)
            now = time.monotonic()
            # The first comes soon, so that a short soak has one too.
            due = self._next.setdefault(id(engine), now + self._random.uniform(5, 30))
            if now < due:
                return function(engine)
            self._next[id(engine)] = now + SECONDS_BETWEEN_STEPS * self._random.uniform(1.05, 1.5)
            self.raised += 1
            with mock.patch.object(engine._runner, "forward", side_effect=OutOfPagesError("injected")):
                return function(engine)

        return step


def serve() -> None:
    """Serves with faults."""
    injector = RowInjector(seed=0, share=SHARE)
    steps = FaultySteps(injector, seed=1)

    def switch(on: bool) -> Callable[[Service], dict[str, Any]]:
        def answer(service: Service) -> dict[str, Any]:
            injector.on = on
            return {"rows": sum(injector.raised.values()), "steps": steps.raised}

        return answer

    with (
        injector.installed(),
        mock.patch.object(Engine, "step", steps.wrap(injector.within(Engine.step))),
        mock.patch.object(Engine, "add_request", injector.within(Engine.add_request)),
    ):
        main({"faults": switch(True), "quiet": switch(False)})


if __name__ == "__main__":
    serve()

"""The progress of a run: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from steering.training.recipe import HeldOutRecord
from steering.training.reporting.estimate import Estimate

# Seconds between two lines where there is no terminal.
_BETWEEN_LINES = 10.0
# The run's time is estimated when this many steps are done.
_MEASURED_STEPS = 3


class RunProgress:
    """Shows a run's steps: which of how many, the loss, tokens a second and the time left. Used in a `with` block.

    A line has the mean loss since the line before.

    `title` is the run's name, `what` the name of a step, `done` the steps of earlier starts, and `lowest` the lowest
    held-out loss of these. `console` None shows nothing. `clock` gives seconds.
    """

    def __init__(
        self,
        console: Console | None,
        title: str,
        total: int,
        done: int = 0,
        estimate: Estimate | None = None,
        *,
        what: str = "step",
        lowest: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._title, self._total = console, title, total
        self._first = self._done = done
        self._estimate, self._what = estimate, what
        self._clock = clock
        self._tokens = 0
        self._losses: list[float] = []  # since the last line
        self._lowest = lowest
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._lines = console is not None and not console.is_terminal
        self._bar = Progress(*columns, console=console, disable=console is None or self._lines)
        self._task = self._bar.add_task(title, total=total, completed=done)

    def __enter__(self) -> RunProgress:
        if self._estimate is not None:
            self.tell(f"{self._title}: {self._estimate}")
        if self._first:
            self.tell(f"{self._title}: goes on after step {self._first}")
        self._bar.start()
        self._begun = self._last_line = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def tell(self, line: str) -> None:
        """Print one plain line."""
        if self._console is not None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def step(self, loss: float | None, tokens: int) -> None:
        """One step is done, over examples of this many tokens; without a loss where there is none."""
        self._done += 1
        self._tokens += tokens
        now = self._clock()
        spent = max(now - self._begun, 1e-9)
        speed = f"{self._tokens / spent:,.0f} tokens/s"
        if loss is not None:
            self._losses.append(loss)
        shown = "" if loss is None else f"  loss {loss:.3f}"
        self._bar.update(self._task, advance=1, description=f"{self._title}{shown}  {speed}")
        steps = self._total - self._first
        if self._losses and self._done - self._first == _MEASURED_STEPS < steps:
            self.tell(
                f"{self._title}: about {duration(self._left(spent) + spent)} for {steps:,} steps, "
                f"by the time of the first {_MEASURED_STEPS}"
            )
        if self._lines and (now - self._last_line >= _BETWEEN_LINES or self._done == self._total):
            self._last_line = now
            mean = f"loss {sum(self._losses) / len(self._losses):.3f}, " if self._losses else ""
            self._losses.clear()
            self.tell(
                f"{self._title}: {self._what} {self._done:,} of {self._total:,}, {mean}{speed}, "
                f"{duration(self._left(spent))} left"
            )

    def held_out(self, record: HeldOutRecord) -> None:
        """The held-out examples have been measured."""
        if not record.step:
            self.tell(f"{self._title}: held-out loss {record.loss:.3f} before the first step")
            return
        lowest = record.loss < self._lowest
        self._lowest = min(self._lowest, record.loss)
        self.tell(
            f"{self._title}: held-out loss {record.loss:.3f} after step {record.step:,}"
            + (", the lowest so far" if lowest else "")
        )

    def _left(self, spent: float) -> float:
        """Seconds left. Steps differ in length, so tokens are counted where the run's number is known."""
        steps = self._total - self._done
        if self._estimate is None or not self._estimate.tokens:
            return spent * steps / (self._done - self._first)
        tokens = self._estimate.tokens * steps / self._total
        return spent * tokens / max(self._tokens, 1)


def duration(seconds: float) -> str:
    """Seconds as people say them: "8 s", "12 min", "1 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

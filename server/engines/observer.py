"""The interface through which a worker reports steps and waiting times."""

from __future__ import annotations

from steering.engine.step_report import StepReport


class Observer:
    """Ignores every report; the metrics override its methods. Event loop only."""

    def stepped(self, name: str, report: StepReport) -> None:
        """A step of the engine `name` has ended."""

    def started(self, name: str, adapter: str, seconds: float) -> None:
        """A sequence runs for the first time, `seconds` after its request arrived."""

"""The interface of an engine, as far as the server uses it; `steering.engine.engine.Engine` implements it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mapping_cache import VocabularyMap
from steering.adapters import Adapter
from steering.engine.outputs import EngineStats, StepOutput
from steering.engine.request import Request
from steering.engine.step_report import StepReport
from steering.model.loading import LoadedModel
from steering.specs import ResolvedSteering


class SessionPort(Protocol):
    """The adapters of one base. Any thread."""

    def prepare(self, adapter: Adapter) -> Any:
        """Makes an adapter ready for the base; requests cannot name it yet. May take seconds."""
        ...

    def install(self, steerer: Any) -> None:
        """Lets requests name the adapter that `prepare` made ready."""
        ...

    def detach(self, name: str, *, when_unused: Callable[[], None] | None = None) -> None:
        """Removes an adapter; `when_unused` is called when the last sequence that it steers has ended."""
        ...

    def adapter_rows(self) -> list[tuple[Adapter, int]]:
        """Every version in memory and how many unfinished sequences it steers."""
        ...

    def adapters(self) -> dict[str, Adapter]:
        """The adapters that requests can name."""
        ...

    def vocabulary_map(self, name: str) -> VocabularyMap:
        """The map from an adapter's vocabulary to the base's; raises KeyError for an unknown name."""
        ...


class EnginePort(Protocol):
    """The engine of one base. One thread calls its methods; any thread may use its session."""

    @property
    def base(self) -> LoadedModel:
        """The base, with its tokenizer and vocabulary."""
        ...

    @property
    def max_model_len(self) -> int:
        """The most tokens of a prompt and its completion together."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do."""
        ...

    @property
    def last_step(self) -> StepReport:
        """The report of the last call of `step`."""
        ...

    @property
    def session(self) -> SessionPort:
        """The adapters of this base."""
        ...

    def add_request(self, request: Request) -> tuple[ResolvedSteering, ...]:
        """Queues one sequence and returns what steers it; raises `InvalidRequestError`."""
        ...

    def abort(self, request_id: str) -> bool:
        """Ends a sequence; False where no unfinished sequence has this id."""
        ...

    def step(self) -> list[StepOutput]:
        """One pass over all running sequences."""
        ...

    def restart(self) -> list[str]:
        """Drops all requests after `step` has raised, and returns their ids. Raises where the device is beyond use."""
        ...

    def stats(self) -> EngineStats:
        """The gauges as they are now, and the counters since the start."""
        ...

"""What the server needs of an engine; `steering.engine.engine.Engine` is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mapping_cache import VocabularyMap
from steering.adapters import Adapter
from steering.engine.step_report import StepReport
from steering.model.loading import LoadedModel
from steering.types import EngineStats, Request, ResolvedSteering, StepOutput


class EnginePort(Protocol):
    """One base's engine. One thread calls `add_request`, `abort` and `step`; any thread the rest."""

    @property
    def base(self) -> LoadedModel:
        """The base and its tokenizer."""
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
        """What the last call of `step` says of itself."""
        ...

    def prepare(self, adapter: Adapter) -> Any:
        """An adapter made ready for the base, which no request can name yet; may take seconds."""
        ...

    def install(self, steerer: Any) -> None:
        """Lets requests name what `prepare` made."""
        ...

    def detach(self, name: str, *, when_unread: Callable[[], None] | None = None) -> None:
        """Forgets an adapter; `when_unread` is called when the last request that has it has ended."""
        ...

    def adapter_readers(self) -> list[tuple[Adapter, int]]:
        """Every version in memory and how many unfinished requests it steers."""
        ...

    def adapters(self) -> dict[str, Adapter]:
        """The adapters that requests can name."""
        ...

    def vocabulary_map(self, name: str) -> VocabularyMap:
        """How an adapter's vocabulary is carried to the base's."""
        ...

    def add_request(self, request: Request) -> None:
        """Queues one sequence; raises `InvalidRequestError`."""
        ...

    def resolve(self, request: Request) -> tuple[ResolvedSteering, ...]:
        """What would steer a request now."""
        ...

    def abort(self, request_id: str) -> bool:
        """Ends a sequence; False where there is none of this id."""
        ...

    def step(self) -> list[StepOutput]:
        """One pass over all that runs."""
        ...

    def stats(self) -> EngineStats:
        """Gauges now and counters since the start."""
        ...

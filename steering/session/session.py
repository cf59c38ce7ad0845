"""The steering session: adapters over one base, for any host that computes the base's logits.

A host opens a row for each sequence, appends the base's tokens to the row's list, hands over the base's logits, and
gets steered logits back. The session does not know how the base runs, who schedules the rows, or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor

from mapping_cache import CanonicalVocabulary, VocabularyMap, load_or_build
from steering.adapters import Adapter
from steering.bridges.table import BRIDGES, unknown_bridge
from steering.crossing.crossing import Crossings
from steering.device.execution import Execution
from steering.errors import AdapterLoadError
from steering.session.distributions import Distributions
from steering.session.registry import SteererRegistry
from steering.session.resolution import resolve
from steering.session.row import Span, SteeredRow
from steering.session.steering_pass import Lap, SteeringPass
from steering.specs import SteeringSpec
from steering.steerers.state import SteererState
from steering.steerers.steerer import Steerer

# A smaller alpha moves no float32 score, and dividing by it overflows.
_LEAST_ALPHA = 1e-12


def _no_lap(phase: str) -> None:
    """Does nothing."""


class SteeringSession:
    """Steers the logits of one base.

    vocabulary: the base's, as long as its logits are wide. device: where the logits are; adapters may be on another.
    `page_size` and `prefix_caching` are for the steering models' own pools. `execution` says how their passes are put
    on the device.

    One thread calls `open`, `steer` and `close`. The methods about adapters may be called from any thread.
    """

    def __init__(
        self,
        vocabulary: CanonicalVocabulary,
        device: torch.device,
        *,
        page_size: int = 16,
        prefix_caching: bool = True,
        execution: Execution | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self._page_size = page_size
        self._prefix_caching = prefix_caching
        self._execution = execution or Execution()
        self._crossings = Crossings(vocabulary, device)
        self._registry = SteererRegistry()
        self._open: set[SteeredRow] = set()
        self._reencoded = 0

    # Adapters

    def attach(self, adapter: Adapter, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Prepare and install an adapter. Raises what `prepare` raises."""
        self.install(self.prepare(adapter, progress=progress))

    def prepare(
        self,
        adapter: Adapter,
        *,
        vocabulary_map: VocabularyMap | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Steerer:
        """Make an adapter ready for this base. No row can name it yet.

        Without a `vocabulary_map` the map is built or read from the cache, which may take seconds. Raises
        AdapterLoadError for an adapter whose bridge is unknown.
        """
        if adapter.bridge not in BRIDGES:
            raise AdapterLoadError(f"adapter {adapter.name!r}: bridge: {unknown_bridge(adapter.bridge)}")
        if vocabulary_map is None:
            steering = adapter.models[0].vocabulary
            vocabulary_map = load_or_build(self.vocabulary, steering, progress=progress)
        return Steerer(
            adapter,
            self._crossings.to(adapter.models[0], vocabulary_map),
            self._page_size,
            self._prefix_caching,
            self._execution.capture_steering,
        )

    def install(self, steerer: Steerer) -> None:
        """Let rows name a prepared adapter. Rows that are open keep the version that they have."""
        self._registry.install(steerer)

    def detach(self, name: str, *, when_unused: Callable[[], None] | None = None) -> None:
        """Forget an adapter. Open rows keep it until they are closed. Raises KeyError for an unknown name.

        Calls `when_unused` when the last of those rows is closed, or at once. Called from another thread than the
        session's, it may miss a row that is being opened.
        """
        self._registry.remove(name, when_unused)

    def adapters(self) -> dict[str, Adapter]:
        """The adapters that new rows can name."""
        return {name: steerer.adapter for name, steerer in self._registry.current().items()}

    def adapter_rows(self) -> list[tuple[Adapter, int]]:
        """Every version in memory and how many open rows it steers: current versions first, then older ones."""
        return [(steerer.adapter, rows) for steerer, rows in self._registry.all()]

    def vocabulary_map(self, name: str) -> VocabularyMap:
        """The map of an adapter's vocabulary to the base's. Raises KeyError for an unknown name."""
        return self._registry.current()[name].crossing.vocabulary_map

    # Rows

    def open(self, tokens: Sequence[int], specs: Sequence[SteeringSpec] = ()) -> SteeredRow:
        """Open a row over the host's list of tokens, and pin the versions of its adapters.

        Raises InvalidRequestError for an adapter that is unknown or cannot be used as asked.
        """
        resolved = resolve(specs, self._registry.current())
        # alpha 0 is the base exactly, so its models need not run.
        states = [SteererState(steerer, spec) for steerer, spec in resolved if abs(spec.alpha) > _LEAST_ALPHA]
        row = SteeredRow(tokens, tuple(spec for _, spec in resolved), states)
        self._registry.pin(state.steerer for state in states)
        self._open.add(row)
        return row

    def close(self, row: SteeredRow) -> None:
        """Free everything that a row holds.

        Its pages go to other rows. So a row that had a fault, or whose scores were not finite, must be invalidated
        first (`SteeredRow.invalidate`).
        """
        self._open.remove(row)
        self._reencoded += sum(state.reencoded for state in row.states)
        for state in row.states:
            state.release()
        self._registry.unpin(state.steerer for state in row.states)

    @torch.inference_mode()
    def steer(self, spans: Sequence[Span], logits: Tensor, *, lap: Lap = _no_lap) -> Distributions:
        """Steered scores at the positions of `spans`.

        logits: the base's at these positions, float32 `[positions, V_base]`, span after span. They are not changed, and
        must not be minus infinity. An error in one row's part is returned in `faults` and affects no other row; the
        host must invalidate and close that row. Raises for a fault of the device or of a pool: `restart` then makes the
        session usable again.
        """
        passing = SteeringPass(self._execution.side, lap)
        return Distributions(logits, passing.run(spans, logits), passing.faults)

    # State

    def restart(self) -> None:
        """Drop all rows, keys and values, after a fault of the device or of a pool. Adapters stay attached."""
        rows, self._open = self._open, set()
        for steerer, _ in self._registry.all():
            steerer.restart()
        self._registry.unpin(state.steerer for row in rows for state in row.states)

    @property
    def reencoded_tokens(self) -> int:
        """History tokens of closed rows that a later encoding replaced."""
        return self._reencoded

    def check_integrity(self) -> None:
        """Raise RuntimeError if a steering model's pool has lost a page, or holds one that no open row owns."""
        states = list(chain.from_iterable(row.states for row in self._open))
        for steerer, _ in self._registry.all():
            for number, runner in enumerate(steerer.runners):
                runner.cache.allocator.check_integrity()
                own = [state.caches[number].pages for state in states if state.steerer is steerer]
                held, used = set(chain.from_iterable(own)), runner.cache.allocator.used
                if len(held) != used:
                    raise RuntimeError(f"steering pages: {used} used, {len(held)} held")

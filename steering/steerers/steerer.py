"""An adapter attached to a base: its runners and its crossing."""

from __future__ import annotations

from functools import partial

from steering.adapters import Adapter
from steering.crossing.crossing import Crossing
from steering.crossing.first_tokens import FirstTokens
from steering.device.capture import Capture
from steering.model.kv_cache import KVCache
from steering.model.pages import PageAllocator
from steering.model.runner import Runner

# A tiny model's pool starts with this many pages and doubles when it is full.
_INITIAL_PAGES = 64
# Positions of the steering model's context kept free for the continuations that `rescore` tries.
CONTEXT_RESERVE = 16


class Steerer:
    """One adapter version attached to one base."""

    def __init__(
        self,
        adapter: Adapter,
        crossing: Crossing,
        page_size: int,
        prefix_caching: bool = True,
        capture: Capture | None = None,
    ) -> None:
        self.adapter = adapter
        self.crossing = crossing
        self._pool = partial(
            PageAllocator, _INITIAL_PAGES, page_size, growable=True, prefix_caching=prefix_caching
        )
        self._capture = capture
        self.runners = self._new_runners()
        self.context_limit = min(model.max_model_len for model in adapter.models)
        self.context = max(1, self.context_limit - CONTEXT_RESERVE)

    def restart(self) -> None:
        """Start with empty pools. The states of rows that are open must be dropped."""
        self.runners = self._new_runners()

    @property
    def shares_vocabulary(self) -> bool:
        """True when base and steering tokens are the same, so that no text is needed between them."""
        return self.crossing.by_text is None

    @property
    def first_tokens(self) -> FirstTokens:
        """How the base's tokens begin in the steering vocabulary. Raises RuntimeError over a shared vocabulary."""
        if self.crossing.by_text is None:
            raise RuntimeError("base and adapter share a vocabulary")
        return self.crossing.by_text.first_tokens

    def _new_runners(self) -> list[Runner]:
        return [Runner(model, KVCache(self._pool()), self._capture) for model in self.adapter.models]

"""Engines as the server makes them."""

from __future__ import annotations

from steering.engine.engine import Engine, EngineConfig
from steering.model.loaded_model import LoadedModel

# The server's setting.
_KL_EVERY = 8


def make_engine(base: LoadedModel, sequences: int, *, prefix_caching: bool = True) -> Engine:
    """An engine that runs at most `sequences` at once, and measures the KL divergence as often as the server's do."""
    config = EngineConfig(max_num_seqs=sequences, prefix_caching=prefix_caching, kl_every=_KL_EVERY)
    return Engine(base, config)

"""Loads the bases and adapters that the configuration names, and the maps between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from demo import demo_adapters, demo_models
from server.config import Config
from server.engines.threads import start_thread
from steering.adapters import load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.errors import ModelLoadError
from steering.model.loading import load_model

Progress = Callable[[str], None]

_KL_EVERY = 8
"""Every eighth token's KL divergence is measured. Measuring every token takes a twentieth of a full batch's step, and
the metric, a histogram, does not need it."""


def load_engines(config: Config, progress: Progress | None = None) -> dict[str, Engine]:
    """An engine for each base, with every adapter attached to it; the demo `tiny` where nothing is named.

    Loads in a daemon thread (`start_thread` says why), so an interrupt ends the process without waiting for it.
    `progress` is called there with the name of each stage. Raises `ModelLoadError` or `AdapterLoadError`.
    """
    return start_thread(
        lambda: _load(config, progress or (lambda stage: None)), "loading", daemon=True
    ).result()


def _load(config: Config, tell: Progress) -> dict[str, Engine]:
    models, adapters = _named(config)
    engines: dict[str, Engine] = {}
    for name, path in models.items():
        tell(f"{name}: loading")
        base = load_model(
            path,
            device=config.device,
            dtype=config.dtype,
            progress=lambda stage, name=name: tell(f"{name}: {stage}"),  # type: ignore[misc]
        )
        engines[name] = Engine(
            base,
            EngineConfig(
                kl_every=_KL_EVERY,
                max_num_seqs=config.max_num_seqs,
                max_model_len=config.max_model_len,
                kv_cache_memory=None if config.kv_cache_memory is None else int(config.kv_cache_memory),
                enforce_eager=config.enforce_eager,
            ),
        )
    for name, path in adapters.items():
        tell(f"{name}: loading the adapter")
        adapter = load_adapter(name, path, device=config.device, dtype=config.dtype)
        for base_name, engine in engines.items():
            tell(f"{base_name}:{name}: vocabulary map")
            engine.session.attach(adapter)
    return engines


def _named(config: Config) -> tuple[Mapping[str, str | Path], Mapping[str, str | Path]]:
    """The bases and adapters to load by name: those that are named, and those of a demo."""
    if config.model and config.demo is None:
        return config.model, config.adapter
    demo = config.demo or "tiny"
    try:
        models = demo_models(demo)
    except FileNotFoundError as error:
        raise ModelLoadError(f"demo {demo}: {error}") from error
    if not models:
        raise ModelLoadError("no model is named, and the bundled demo's models are not installed")
    return {**models, **config.model}, {**demo_adapters(demo), **config.adapter}

"""Loads the bases and adapters that the configuration names, and the maps between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from demo import DemoName, demo_adapters, demo_models
from server.config import Config
from server.engines.threads import start_thread
from steering.adapters import load_adapter
from steering.device.cores import available_cores
from steering.engine.engine import Engine, EngineConfig
from steering.errors import ModelLoadError
from steering.model.loading import load_model

Progress = Callable[[str], None]

_KL_EVERY = 8
"""Every eighth token's KL divergence is measured. Measuring every token takes a twentieth of a full batch's step, and
the metric, a histogram, does not need it."""


def load_engines(config: Config, progress: Progress | None = None) -> dict[str, Engine]:
    """An engine for each base, with every adapter attached to it; the demo `tiny` where nothing is named.

    With an adapter store no adapter is attached: the store says which, once the engines run.

    Before that, the process takes its share of the cores (`share_cores`). Loads in a daemon thread (`start_thread` says
    why), so an interrupt ends the process without waiting for it. `progress` is called there with the name of
    each stage. Raises `ModelLoadError` or `AdapterLoadError`.
    """
    share_cores(config.threads)
    return start_thread(
        lambda: _load(config, progress or (lambda stage: None)), "loading", daemon=True
    ).result()


def share_cores(threads: int | None) -> None:
    """Has torch compute with `threads` threads; with None, with no more than the cores that the process may use.

    Two processes on one machine whose threads exceed the cores lose most of their speed: at each barrier all threads of
    one wait for a thread that the other one keeps from running. torch itself does not look at CPU quotas. Variables
    such as OMP_NUM_THREADS still lower the number.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), available_cores()))


def _load(config: Config, tell: Progress) -> dict[str, Engine]:
    models, adapters = named_models(config), named_adapters(config)
    if config.adapter_store is not None:
        adapters = {}
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


def named_models(config: Config) -> Mapping[str, str | Path]:
    """The bases of the start by name: those that are named, and a demo's. Raises `ModelLoadError` for none."""
    demo = _demo(config)
    if demo is None:
        return config.model
    try:
        models = demo_models(demo)
    except FileNotFoundError as error:
        raise ModelLoadError(f"demo {demo}: {error}") from error
    if not models:
        raise ModelLoadError("no model is named, and the bundled demo's models are not installed")
    return {**models, **config.model}


def named_adapters(config: Config) -> Mapping[str, str | Path]:
    """The adapters of the start by name: those that are named, and a demo's where one is served."""
    demo = _demo(config)
    return config.adapter if demo is None else {**demo_adapters(demo), **config.adapter}


def _demo(config: Config) -> DemoName | None:
    """The demo to serve: the one that is asked for, or `tiny` where no base is named."""
    return config.demo if config.demo or config.model else "tiny"

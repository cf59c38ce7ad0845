"""What is measured side by side: the base, the base steered, direct tuning, and the controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from transformers import AutoModelForCausalLM

from steering.adapters import Adapter
from steering.engine.engine import Engine, EngineConfig
from steering.evaluation.controls import random_adapter, shuffled_map
from steering.evaluation.setting import Setting, apply, filled, map_for
from steering.model.loaded_model import LoadedModel
from steering.types import SteeringSpec

BASE, STEERED, TUNED, ALONE = "base", "steered", "directly tuned", "tiny model alone"
RANDOM, SHUFFLED = "random adapter", "shuffled map"


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """One row of a table: an engine and what steers its requests. `parameters` counts the models that run."""

    label: str
    engine: Engine
    steering: tuple[SteeringSpec, ...] = ()
    parameters: int = 0


def base_system(engine: Engine) -> System:
    """The base as it is."""
    return System(BASE, engine, (), size(engine.base))


def steered_system(engine: Engine, adapter: Adapter, setting: Setting, label: str = STEERED) -> System:
    """The base steered by an adapter."""
    spec = apply(engine, adapter, setting, name=label)
    return System(label, engine, (spec,), size(engine.base) + sum(map(size, adapter.models)))


def tuned_system(model: LoadedModel, config: EngineConfig) -> System:
    """A directly tuned model: the upper end of the gap."""
    return System(TUNED, Engine(model, config), (), size(model))


def alone_system(adapter: Adapter, config: EngineConfig) -> System:
    """The delta or the expert as a language model of its own; the expert alone often ties the steered base."""
    return System(ALONE, Engine(adapter.models[0], config), (), size(adapter.models[0]))


def random_system(engine: Engine, adapter: Adapter, setting: Setting, seed: int) -> System:
    """Steered as far by the same adapter without what it learnt."""
    drawn, factor = random_adapter(adapter, seed)
    whole = filled(setting, adapter)
    return steered_system(engine, drawn, replace(whole, alpha=factor * (whole.alpha or 0.0)), RANDOM)


def shuffled_system(engine: Engine, adapter: Adapter, setting: Setting, seed: int) -> System:
    """Steered through a map whose targets are in random order; always by the bridge `map`.

    Rescoring reads text and has hardly any use for a map.
    """
    shuffled = shuffled_map(map_for(engine, adapter, setting), seed)
    spec = apply(
        engine,
        adapter,
        replace(filled(setting, adapter), bridge="map"),
        name=SHUFFLED,
        vocabulary_map=shuffled,
    )
    return System(SHUFFLED, engine, (spec,), size(engine.base) + sum(map(size, adapter.models)))


def control_systems(
    engine: Engine, adapter: Adapter, setting: Setting, seed: int
) -> list[Callable[[], System]]:
    """The rows that every table prints beside the steered base, each made when it is measured."""
    return [
        lambda: alone_system(adapter, engine.config),
        lambda: random_system(engine, adapter, setting, seed),
        lambda: shuffled_system(engine, adapter, setting, seed),
    ]


def size(model: LoadedModel) -> int:
    """Parameters of a model, tied ones once; counted from its configuration, as the engine may lay weights out anew."""
    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(model.model.config).num_parameters())

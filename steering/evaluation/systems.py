"""The systems that are compared: the base, the base steered, the base tuned directly, and the controls."""

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
from steering.specs import SteeringSpec

BASE, STEERED, TUNED, ALONE = "base", "steered", "directly tuned", "tiny model alone"
RANDOM, SHUFFLED = "random adapter", "shuffled map"


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """One system of a comparison: an engine and the steering of its requests. `parameters` counts all models in use."""

    label: str
    engine: Engine
    steering: tuple[SteeringSpec, ...] = ()
    parameters: int = 0


def base_system(engine: Engine) -> System:
    """The unsteered base."""
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
    """The base steered by the adapter with shuffled weights, at an alpha that makes the shift as large."""
    drawn, factor = random_adapter(adapter, seed)
    whole = filled(setting, adapter)
    return steered_system(engine, drawn, replace(whole, alpha=factor * (whole.alpha or 0.0)), RANDOM)


def shuffled_system(engine: Engine, adapter: Adapter, setting: Setting, seed: int) -> System:
    """The base steered through a map whose targets are shuffled, always by the bridge `map`.

    The bridge `rescore` reads text and hardly uses the map.
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
    """The three controls of a comparison, each made when it is measured."""
    return [
        lambda: alone_system(adapter, engine.config),
        lambda: random_system(engine, adapter, setting, seed),
        lambda: shuffled_system(engine, adapter, setting, seed),
    ]


def size(model: LoadedModel) -> int:
    """The number of a model's parameters, tied ones counted once.

    It is computed from the configuration, because the engine may have rearranged the weights.
    """
    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(model.model.config).num_parameters())

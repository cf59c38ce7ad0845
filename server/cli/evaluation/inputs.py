"""The inputs of an evaluation: models, sets of examples, tasks, and the hyperparameters of a sweep."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from server.cli.evaluation.options import EngineOptions, EvaluationDataOptions, TaskOptions
from server.cli.options import console as messages

if TYPE_CHECKING:
    from steering.adapters import Adapter
    from steering.engine.engine import Engine, EngineConfig
    from steering.evaluation import Task
    from steering.model.loaded_model import LoadedModel


class Loading:
    """Loads models and adapters onto one device, with a status line on the terminal."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options

    @property
    def config(self) -> EngineConfig:
        """The limits of every engine."""
        from steering.engine.engine import EngineConfig

        return EngineConfig(max_num_seqs=self._options.max_num_seqs)

    def model(self, path: str) -> LoadedModel:
        """Load a model. Raises `ModelLoadError`."""
        from steering.model.loading import load_model

        with messages.status(f"loading {path}"):
            return load_model(path, device=self._options.device, dtype=self._options.dtype)

    def engine(self, path: str) -> Engine:
        """Load a model and give it an engine. Raises `ModelLoadError`."""
        from steering.engine.engine import Engine

        return Engine(self.model(path), self.config)

    def adapter(self, path: Path) -> Adapter:
        """Load an adapter, named after its folder. Raises `AdapterLoadError`."""
        from steering.adapters import load_adapter

        options = self._options
        with messages.status(f"loading {path}"):
            return load_adapter(path.resolve().name, path, device=options.device, dtype=options.dtype)


def read_sets(options: EvaluationDataOptions, limit: int | None) -> dict[str, Any]:
    """The examples of each `--data` by its name, and TOFU's four sets as "tofu"; at most `limit` of each set.

    Reads no model. Raises `DataError` for a bad file or name and `typer.BadParameter` if there is no set.
    """
    from steering.evaluation import read_tofu, thinned
    from steering.examples import DataError, read_examples

    sets: dict[str, Any] = {}
    for entry in options.data or []:
        name, given, file = entry.partition("=")
        path = Path(file) if given else Path(entry)
        name = name if given else path.stem
        if not name:
            raise DataError(f"--data {entry}: the set has no name")
        if name in sets or name == "tofu":
            raise DataError(f"--data {entry}: another set is called {name!r} already")
        sets[name] = tuple(thinned(read_examples(path), limit))
    if options.tofu is not None:
        sets["tofu"] = read_tofu(options.tofu, limit=limit)
    if not sets:
        raise typer.BadParameter("give --data or --tofu", param_hint="--data")
    return sets


def make_tasks(
    sets: Mapping[str, Any], options: TaskOptions, oracle: str | None, loading: Loading
) -> list[Task]:
    """A task for each set. An oracle is loaded and measured here, once.

    Raises `typer.BadParameter` for an answer pattern that is not a regular expression.
    """
    from steering.engine.engine import Engine
    from steering.evaluation import TextTask, TofuTask, base_system

    try:
        pattern = None if options.answer_pattern is None else re.compile(options.answer_pattern)
    except re.error as error:
        raise typer.BadParameter(str(error), param_hint="--answer-pattern") from error
    tasks: list[Task] = [
        TextTask(name, found, options.max_tokens, pattern) for name, found in sets.items() if name != "tofu"
    ]
    if "tofu" in sets:
        task = TofuTask(sets["tofu"], options.max_tokens)
        if oracle is not None:
            never_saw = base_system(Engine(loading.model(oracle), loading.config))
            with messages.status("measuring the oracle"):
                task = replace(task, oracle=task.forget_ratios(never_saw))
        tasks.append(task)
    return tasks


def split_sets(sets: Mapping[str, Any], share: float, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The development split, about `share` of each set, and the test split; TOFU's four sets are split one by one."""
    from steering.evaluation import split

    development: dict[str, Any] = {}
    test: dict[str, Any] = {}
    for name, found in sets.items():
        if name == "tofu":
            development[name], test[name] = split_sets(found, share, seed)
        else:
            development[name], test[name] = map(tuple, split(found, share, seed))
    return development, test


def read_hyperparameters(given: Sequence[str] | None) -> dict[str, Sequence[Any]]:
    """The hyperparameters to vary and their values, from NAME or NAME=VALUE,VALUE; all of them if none is given.

    Values get the hyperparameter's type. Raises `typer.BadParameter` for an unknown name or value.
    """
    from steering.evaluation import HYPERPARAMETERS

    if not given:
        return dict(HYPERPARAMETERS)
    hint = "--hyperparameter"
    found: dict[str, Sequence[Any]] = {}
    for entry in given:
        name, has_values, values = entry.partition("=")
        if name not in HYPERPARAMETERS:
            known = ", ".join(HYPERPARAMETERS)
            raise typer.BadParameter(f"there is no hyperparameter {name!r}: {known}", param_hint=hint)
        usual = HYPERPARAMETERS[name]
        try:
            found[name] = [type(usual[0])(value) for value in values.split(",")] if has_values else usual
        except ValueError as error:
            raise typer.BadParameter(f"{entry}: {error}", param_hint=hint) from error
        allowed = usual if isinstance(usual[0], str) else None
        if allowed and (wrong := [value for value in found[name] if value not in allowed]):
            raise typer.BadParameter(f"{name} cannot be {wrong[0]!r}", param_hint=hint)
    return found

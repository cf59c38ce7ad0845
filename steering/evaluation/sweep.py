"""A sweep finds the setting that steers best: it varies one hyperparameter at a time on a development split.

The best setting is then measured on the test split. Every measurement is a line of a JSON-lines file, keyed by
everything that it depends on, so that an interrupted sweep continues where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from steering.adapters import Adapter
from steering.bridges.table import BRIDGES
from steering.engine.engine import Engine
from steering.evaluation.comparison import Observer, measure
from steering.evaluation.setting import Setting, filled, map_for
from steering.evaluation.systems import BASE, base_system, steered_system
from steering.evaluation.task import ItemT, Measurement, Task
from steering.model.loaded_model import LoadedModel

HYPERPARAMETERS: dict[str, tuple[Any, ...]] = {
    "alpha": (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
    "bridge": tuple(BRIDGES),
    "method": ("exact", "pm-mined", "mined"),
    "form": ("bytes", "surface"),
    "min_similarity": (0.0, 0.25, 0.5, 0.75, 1.0),
    "unmatched": ("neutral", "zero"),
    "top_k": (0, 1, 5, 20, 100),
}
"""The fields of `Setting` that a sweep varies, with their usual values."""

# Hyperparameters without effect when the base and the adapter share one vocabulary.
_ACROSS_VOCABULARIES = ("bridge", "method", "form", "min_similarity", "unmatched")
_TERM = re.compile(r"\s*([+-]?)\s*([\w.-]*\w)\s*")


class SweepError(ValueError):
    """A sweep cannot be run as asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """The quantity that a sweep maximises: a signed sum of figures, as in `retain.rouge_l - forget.rouge_l`."""

    text: str
    terms: tuple[tuple[float, str], ...]

    @classmethod
    def parse(cls, text: str) -> Criterion:
        """Read a criterion: names of figures joined by + and - with spaces around them. Raises `SweepError`."""
        parts = text.replace("- ", "+ -").split("+ ") if text.strip() else []
        terms = []
        for part in parts:
            cleaned = part.strip()
            if not cleaned:
                continue
            match = _TERM.fullmatch(cleaned)
            if match is None:
                raise SweepError(f"criterion {text!r}: {cleaned!r} is not the name of a figure")
            terms.append((-1.0 if match[1] == "-" else 1.0, match[2]))
        if not terms:
            raise SweepError("criterion: it names no figure")
        return cls(text, tuple(terms))

    def value(self, figures: Mapping[str, float]) -> float:
        """The criterion's value for measured figures. Raises `SweepError` for a figure that no task measures."""
        for _, name in self.terms:
            if name not in figures:
                raise SweepError(f"criterion: there is no figure {name!r} (there are: {', '.join(figures)})")
        return sum(sign * figures[name] for sign, name in self.terms)


@dataclass(frozen=True, slots=True)
class SweepRun:
    """The figures of one setting on one split.

    `split` is "development" or "test"; `varied` is the hyperparameter that differs from the start, "" for none.
    """

    split: str
    varied: str
    label: str
    setting: Setting
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The runs on the development split, the setting chosen there, and the final runs on the test split."""

    runs: tuple[SweepRun, ...]
    chosen: Setting
    final: tuple[SweepRun, ...]


def split(items: Sequence[ItemT], share: float, seed: int) -> tuple[list[ItemT], list[ItemT]]:
    """Draw a development split of about `share` of the items; the rest is the test split. Both keep the items' order.

    Raises `SweepError` if either split is empty.
    """
    order = list(range(len(items)))
    random.Random(seed).shuffle(order)
    chosen = set(order[: round(share * len(items))])
    if not 0 < len(chosen) < len(items):
        raise SweepError(f"{len(items)} examples cannot be split {share:g} to {1 - share:g}")
    return (
        [item for index, item in enumerate(items) if index in chosen],
        [item for index, item in enumerate(items) if index not in chosen],
    )


class Sweep:
    """Measures one adapter on one base under many settings.

    `results` is the JSON-lines file of measurements. `observe` receives a system's label and the number of requests
    that have ended; `tell` receives each run. Raises `SweepError` for a results file with a broken line.
    """

    def __init__(
        self,
        engine: Engine,
        adapter: Adapter,
        development: Sequence[Task],
        test: Sequence[Task],
        criterion: Criterion,
        results: Path,
        *,
        observe: Observer | None = None,
        tell: Callable[[SweepRun], None] | None = None,
    ) -> None:
        self._engine, self._adapter = engine, adapter
        self._tasks = {"development": development, "test": test}
        self._criterion = criterion
        self._results = results
        self._weights = _weights_fingerprint(engine.base)
        self._observe, self._tell = observe, tell
        self._done = _read(results)
        self._base: dict[str, dict[str, Measurement]] = {}

    def run(
        self, start: Setting | None = None, hyperparameters: Mapping[str, Sequence[Any]] = HYPERPARAMETERS
    ) -> SweepResult:
        """Vary each of the hyperparameters from `start`, then combine the best value of each.

        The best of all these settings on the development split is measured on the test split, beside the base and the
        start. Raises `SweepError` for an unknown hyperparameter, or a criterion with a figure that no task measures.
        """
        unknown = sorted(set(hyperparameters) - {field.name for field in fields(Setting)})
        if unknown:
            known = ", ".join(HYPERPARAMETERS)
            raise SweepError(f"there is no hyperparameter {unknown[0]!r} (there are: {known})")
        first = filled(start or Setting(), self._adapter)
        runs = [self._run_setting("development", "", "start", first)]
        # A criterion that cannot be computed is found here, before the hours that the other runs take.
        self._criterion.value(runs[0].figures)
        combined = first
        for name, values in self._effective(hyperparameters).items():
            varied = [
                self._run_setting("development", name, f"{name} {value}", replace(first, **{name: value}))
                for value in values
            ]
            runs += varied
            combined = replace(combined, **{name: getattr(self._best([runs[0], *varied]).setting, name)})
        runs.append(self._run_setting("development", "", "each at its best", combined))
        chosen = self._best(runs).setting
        final = (
            self._run_setting("test", "", BASE, replace(first, alpha=0.0)),
            self._run_setting("test", "", "start", first),
            self._run_setting("test", "", "chosen", chosen),
        )
        return SweepResult(tuple(runs), chosen, final)

    def _effective(self, hyperparameters: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """The hyperparameters that have an effect for this base and adapter."""
        shared = map_for(self._engine, self._adapter, Setting()).is_identity
        return {
            name: values
            for name, values in hyperparameters.items()
            if not (shared and name in _ACROSS_VOCABULARIES)
        }

    def _best(self, runs: Sequence[SweepRun]) -> SweepRun:
        """The run with the largest criterion; among equals the first, so that a tie keeps the start."""
        return max(runs, key=lambda run: self._criterion.value(run.figures))

    def _run_setting(self, part: str, varied: str, label: str, setting: Setting) -> SweepRun:
        """Measure a setting on a split, or take its figures from the results file."""
        key = self._key(part, setting)
        if key not in self._done:
            figures = self._measure(part, setting)
            line = {"key": key, "split": part, "setting": asdict(setting), "figures": figures}
            with self._results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._done[key] = figures
        run = SweepRun(part, varied, label, setting, self._done[key])
        if self._tell is not None:
            self._tell(run)
        return run

    def _measure(self, part: str, setting: Setting) -> dict[str, float]:
        tasks = self._tasks[part]
        if part not in self._base:
            _, self._base[part] = measure(base_system(self._engine), tasks, None, self._observe)
        system = steered_system(self._engine, self._adapter, setting)
        return measure(system, tasks, self._base[part], self._observe)[0]

    def _key(self, part: str, setting: Setting) -> str:
        """A digest of everything that a measurement depends on."""
        parts = (
            self._engine.base.vocabulary.fingerprint,
            self._engine.base.dtype,
            self._weights,
            self._adapter.version,
            setting,
            self._tasks[part],
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _read(path: Path) -> dict[str, dict[str, float]]:
    """The figures of earlier measurements by their keys.

    An incomplete last line is removed from the file. Raises `SweepError` for any other broken line.
    """
    done: dict[str, dict[str, float]] = {}
    if not path.exists():
        return done
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            done[value["key"]] = {str(name): float(figure) for name, figure in value["figures"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number < len(lines):
                raise SweepError(f"{path}:{number}: not a sweep's result: {error!r}") from error
            lines[-1] = ""
    if lines[-1]:
        lines.append("")
    if lines != text.split("\n"):
        path.write_text("\n".join(lines), encoding="utf-8")
    return done


def _weights_fingerprint(model: LoadedModel) -> str:
    """A digest of the weights in a model's folder; for a model fetched by its id, the id and the revision."""
    folder = Path(model.path)
    if not folder.is_dir():
        return f"{model.path}@{getattr(model.model.config, '_commit_hash', None)}"
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()

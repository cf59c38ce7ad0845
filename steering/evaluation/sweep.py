"""Which setting steers best: each dial turned with the rest fixed, on a development split; then the test split.

Every measurement is a line of a JSON-lines file, keyed by all that it depends on, so that a sweep that is cut off goes
on where it was.
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
from steering.engine.engine import Engine
from steering.evaluation.comparison import Observer, measure
from steering.evaluation.setting import Setting, filled, map_for
from steering.evaluation.systems import BASE, base_system, steered_system
from steering.evaluation.task import ItemT, Measurement, Task
from steering.model.loaded_model import LoadedModel

DIALS: dict[str, tuple[Any, ...]] = {
    "alpha": (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
    "bridge": ("map", "rescore"),
    "method": ("exact", "pm-mined", "mined"),
    "form": ("bytes", "surface"),
    "min_similarity": (0.0, 0.25, 0.5, 0.75, 1.0),
    "unmatched": ("neutral", "zero"),
    "top_k": (0, 1, 5, 20, 100),
}
# What lies between two vocabularies is nothing where they are one.
_BETWEEN = ("bridge", "method", "form", "min_similarity", "unmatched")
_TERM = re.compile(r"\s*([+-]?)\s*([\w.-]*\w)\s*")


class SweepError(ValueError):
    """A sweep that cannot be run as asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """A signed sum of figures, to be made as large as can be: `retain.rouge_l - forget.rouge_l`."""

    text: str
    terms: tuple[tuple[float, str], ...]

    @classmethod
    def parse(cls, text: str) -> Criterion:
        """Raises `SweepError` for anything but figures joined by + and - (with spaces round them)."""
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
        """Raises `SweepError` for a figure that no task measures."""
        for _, name in self.terms:
            if name not in figures:
                raise SweepError(f"criterion: there is no figure {name!r} (there are: {', '.join(figures)})")
        return sum(sign * figures[name] for sign, name in self.terms)


@dataclass(frozen=True, slots=True)
class Trial:
    """One measurement: on which split, which dial was turned ("" for none), and what came of it."""

    split: str
    dial: str
    label: str
    setting: Setting
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """All trials on the development split, the setting chosen there, and the final figures on the test split."""

    trials: tuple[Trial, ...]
    chosen: Setting
    final: tuple[Trial, ...]


def split(items: Sequence[ItemT], share: float, seed: int) -> tuple[list[ItemT], list[ItemT]]:
    """A development split of about `share` of the items, and the rest, each in its first order.

    Raises `SweepError` unless both get something.
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
    """Runs one adapter on one base through its settings."""

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
        tell: Callable[[Trial], None] | None = None,
    ) -> None:
        self._engine, self._adapter = engine, adapter
        self._tasks = {"development": development, "test": test}
        self._criterion = criterion
        self._results = results
        self._weights = _weights_fingerprint(engine.base)
        self._observe, self._tell = observe, tell
        self._done = _read(results)
        self._base: dict[str, dict[str, Measurement]] = {}

    def run(self, start: Setting | None = None, dials: Mapping[str, Sequence[Any]] = DIALS) -> SweepResult:
        """Turn each dial from `start`, then all to their best at once; the best of these is measured on the test split.

        Raises `SweepError` for a dial that there is not, or a criterion that nothing measures.
        """
        unknown = sorted(set(dials) - {field.name for field in fields(Setting)})
        if unknown:
            raise SweepError(f"there is no dial {unknown[0]!r} (there are: {', '.join(DIALS)})")
        first = filled(start or Setting(), self._adapter)
        trials = [self._trial("development", "", "start", first)]
        # Before hours are spent: does the criterion stand?
        self._criterion.value(trials[0].figures)
        together = first
        for dial, values in self._turned(dials).items():
            turned = [
                self._trial("development", dial, f"{dial} {value}", replace(first, **{dial: value}))
                for value in values
            ]
            trials += turned
            together = replace(together, **{dial: getattr(self._best([trials[0], *turned]).setting, dial)})
        trials.append(self._trial("development", "", "each at its best", together))
        chosen = self._best(trials).setting
        final = [
            self._trial("test", "", BASE, replace(first, alpha=0.0)),
            self._trial("test", "", "start", first),
        ]
        final.append(self._trial("test", "", "chosen", chosen))
        return SweepResult(tuple(trials), chosen, tuple(final))

    def _turned(self, dials: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """The dials that can make a difference."""
        same = map_for(self._engine, self._adapter, Setting()).is_identity
        return {dial: values for dial, values in dials.items() if not (same and dial in _BETWEEN)}

    def _best(self, trials: Sequence[Trial]) -> Trial:
        """The first of the best, so that nothing is changed for nothing."""
        return max(trials, key=lambda trial: self._criterion.value(trial.figures))

    def _trial(self, part: str, dial: str, label: str, setting: Setting) -> Trial:
        key = self._key(part, setting)
        if key not in self._done:
            figures = self._measure(part, setting)
            line = {"key": key, "split": part, "setting": asdict(setting), "figures": figures}
            with self._results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._done[key] = figures
        trial = Trial(part, dial, label, setting, self._done[key])
        if self._tell is not None:
            self._tell(trial)
        return trial

    def _measure(self, part: str, setting: Setting) -> dict[str, float]:
        tasks = self._tasks[part]
        if part not in self._base:
            _, self._base[part] = measure(base_system(self._engine), tasks, None, self._observe)
        system = steered_system(self._engine, self._adapter, setting)
        return measure(system, tasks, self._base[part], self._observe)[0]

    def _key(self, part: str, setting: Setting) -> str:
        """Names a measurement by all that it depends on."""
        what = (
            self._engine.base.vocabulary.fingerprint,
            self._engine.base.dtype,
            self._weights,
            self._adapter.version,
            setting,
            self._tasks[part],
        )
        return hashlib.sha256(repr(what).encode()).hexdigest()[:24]


def _read(path: Path) -> dict[str, dict[str, float]]:
    """Earlier measurements; a last line that was cut off is dropped. Raises `SweepError` for any other broken line."""
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
    """Tells models of one path apart: a digest of a folder's weights, or the revision of what was fetched."""
    folder = Path(model.path)
    if not folder.is_dir():
        return f"{model.path}@{getattr(model.model.config, '_commit_hash', None)}"
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()

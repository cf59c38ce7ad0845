"""What `trimtab evaluate` is given: its flags, its data, the models that it loads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.map import FormName, MethodName
from server.cli.options import console as messages

if TYPE_CHECKING:
    from steering.adapters import Adapter
    from steering.engine.engine import Engine, EngineConfig
    from steering.evaluation import Setting, Task
    from steering.model.loaded_model import LoadedModel


class BridgeChoice(StrEnum):
    """How a shift reaches the base's vocabulary."""

    map = "map"
    rescore = "rescore"


class UnmatchedChoice(StrEnum):
    """What tokens without a match get: none of a centred shift, or none of it as it is."""

    neutral = "neutral"
    zero = "zero"


BaseOption = Annotated[str | None, typer.Option(help="The base: a folder or a Hugging Face id.")]
AdapterOption = Annotated[Path | None, typer.Option(help="The adapter folder that steers it.")]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=FILE or FILE: JSON lines with prompt and response, or messages, or plain text. "
        "May be given several times."
    ),
]
TofuOption = Annotated[Path | None, typer.Option(help="A folder with TOFU's four perturbed sets.")]
OracleOption = Annotated[
    str | None,
    typer.Option(help="A model that never saw what is forgotten; forget quality is measured against it."),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most this many examples of each set.")]
MaxTokensOption = Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")]
PatternOption = Annotated[
    str | None,
    typer.Option(help=r"Exact match compares what this matches last: '####\s*(.+)' for GSM8K's answers."),
]
AlphaOption = Annotated[float | None, typer.Option(help="The adapter's strength; its own.")]
BridgeOption = Annotated[BridgeChoice | None, typer.Option(help="The bridge; the adapter's own.")]
MethodOption = Annotated[MethodName, typer.Option(help="How the map matches tokens.")]
FormOption = Annotated[FormName, typer.Option(help="What of tokens the map compares.")]
SimilarityOption = Annotated[float, typer.Option(min=0.0, max=1.0, help="Weaker matches get no shift.")]
UnmatchedOption = Annotated[UnmatchedChoice | None, typer.Option(help="Centring; the adapter's own.")]
TopKOption = Annotated[
    int | None,
    typer.Option(min=0, help="Shift the base's k likeliest tokens only; 0 all; the adapter's own."),
]
SeedOption = Annotated[int, typer.Option(help="Seed of the controls and of splits.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write everything here; - for stdout alone.")]
PngOption = Annotated[
    Path | None, typer.Option("--png", help="Draw the picture here (needs the extra: plots).")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
DtypeOption = Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")]
SequencesOption = Annotated[int, typer.Option(min=1, help="How many requests run at once.")]


class Loading:
    """Loads models for one device, and says so meanwhile."""

    def __init__(self, device: str, dtype: str, max_num_seqs: int) -> None:
        self._device, self._dtype = device, dtype
        self._max_num_seqs = max_num_seqs

    @property
    def config(self) -> EngineConfig:
        """The limits of every engine."""
        from steering.engine.engine import EngineConfig

        return EngineConfig(max_num_seqs=self._max_num_seqs)

    def model(self, path: str) -> LoadedModel:
        """A model; raises `ModelLoadError`."""
        from steering.model.loading import load_model

        with messages.status(f"loading {path}"):
            return load_model(path, device=self._device, dtype=self._dtype)

    def engine(self, path: str) -> Engine:
        """A model with an engine of its own."""
        from steering.engine.engine import Engine

        return Engine(self.model(path), self.config)

    def adapter(self, path: Path) -> Adapter:
        """An adapter under its folder's name; raises `AdapterLoadError`."""
        from steering.adapters import load_adapter

        with messages.status(f"loading {path}"):
            return load_adapter(path.resolve().name, path, device=self._device, dtype=self._dtype)


def read_sets(data: list[str] | None, tofu: Path | None, limit: int | None) -> dict[str, Any]:
    """Examples by the name of their file, and TOFU's sets; read and checked before any model is loaded."""
    from steering.evaluation import read_tofu, thinned
    from steering.examples import DataError, read_examples

    sets: dict[str, Any] = {}
    for entry in data or []:
        name, given, file = entry.partition("=")
        path = Path(file) if given else Path(entry)
        name = name if given else path.stem
        if not name or name in sets or name == "tofu":
            raise DataError(f"--data {entry}: another set is called {name!r} already, or none has no name")
        sets[name] = tuple(thinned(read_examples(path), limit))
    if tofu is not None:
        sets["tofu"] = read_tofu(tofu, limit=limit)
    if not sets:
        raise typer.BadParameter("give --data or --tofu", param_hint="--data")
    return sets


def make_tasks(
    sets: Mapping[str, Any], max_tokens: int, pattern: str | None, oracle: str | None, loading: Loading
) -> list[Task]:
    """A task for each set; an oracle is measured at once."""
    from steering.engine.engine import Engine
    from steering.evaluation import TextTask, TofuTask, base_system

    try:
        compiled = None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise typer.BadParameter(str(error), param_hint="--answer-pattern") from error
    tasks: list[Task] = [
        TextTask(name, found, max_tokens, compiled) for name, found in sets.items() if name != "tofu"
    ]
    if "tofu" in sets:
        task = TofuTask(sets["tofu"], max_tokens)
        if oracle is not None:
            never_saw = base_system(Engine(loading.model(oracle), loading.config))
            with messages.status("measuring the oracle"):
                task = replace(task, oracle=task.forget_ratios(never_saw))
        tasks.append(task)
    return tasks


def split_sets(sets: Mapping[str, Any], share: float, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each set in two, the development split first; of TOFU's four every one."""
    from steering.evaluation import split

    development: dict[str, Any] = {}
    test: dict[str, Any] = {}
    for name, found in sets.items():
        if name == "tofu":
            development[name], test[name] = split_sets(found, share, seed)
        else:
            development[name], test[name] = map(tuple, split(found, share, seed))
    return development, test


def read_dials(given: list[str] | None) -> dict[str, Sequence[Any]]:
    """The dials to turn, each value of the type that its dial has."""
    from steering.evaluation import DIALS

    if not given:
        return dict(DIALS)
    dials: dict[str, Sequence[Any]] = {}
    for entry in given:
        name, has_values, values = entry.partition("=")
        if name not in DIALS:
            raise typer.BadParameter(f"there is no dial {name!r}: {', '.join(DIALS)}", param_hint="--dial")
        own = DIALS[name]
        try:
            dials[name] = [type(own[0])(value) for value in values.split(",")] if has_values else own
        except ValueError as error:
            raise typer.BadParameter(f"{entry}: {error}", param_hint="--dial") from error
        allowed = own if isinstance(own[0], str) else None
        if allowed and (wrong := [value for value in dials[name] if value not in allowed]):
            raise typer.BadParameter(f"{name} cannot be {wrong[0]!r}", param_hint="--dial")
    return dials


def make_setting(
    alpha: float | None,
    bridge: BridgeChoice | None,
    method: MethodName,
    form: FormName,
    min_similarity: float,
    unmatched: UnmatchedChoice | None,
    top_k: int | None,
) -> Setting:
    """The flags as a setting; what was not given stays the adapter's own."""
    from steering.evaluation import Setting

    return Setting(
        alpha=alpha,
        bridge=bridge.value if bridge else None,
        method=method.value,
        form=form.value,
        min_similarity=min_similarity,
        unmatched=unmatched.value if unmatched else None,
        top_k=top_k,
    )

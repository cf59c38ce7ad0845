"""`trimtab evaluate`: measures the effect of steering, through the engine, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mapping_cache import PlotsUnavailableError
from server.cli.evaluation.inputs import Loading, make_tasks, read_hyperparameters, read_sets, split_sets
from server.cli.evaluation.options import (
    ADAPTER_OPTION,
    BASE_OPTION,
    EngineOptions,
    EvaluationDataOptions,
    OutputOptions,
    SeedOption,
    SettingOptions,
    TaskOptions,
)
from server.cli.grouped_options import grouped_options
from server.cli.options import console as messages
from server.cli.options import fail

if TYPE_CHECKING:
    from steering.adapters import Adapter
    from steering.engine.engine import Engine
    from steering.evaluation import Comparison, Criterion, Setting, SweepResult, System

evaluate_app = typer.Typer(help="Measure the effect of steering.", invoke_without_command=True)


@evaluate_app.callback()
@grouped_options
def evaluate(
    *,
    context: typer.Context,
    base: Annotated[str | None, BASE_OPTION] = None,
    adapter: Annotated[Path | None, ADAPTER_OPTION] = None,
    data: EvaluationDataOptions,
    tuned: Annotated[
        str | None, typer.Option(help="The base tuned directly; it sets the upper end of the gap to close.")
    ] = None,
    controls: Annotated[
        bool, typer.Option(help="Also measure the tiny model alone, a random adapter and a shuffled map.")
    ] = True,
    setting: SettingOptions,
    task: TaskOptions,
    seed: SeedOption = 0,
    output: OutputOptions,
    engine: EngineOptions,
) -> None:
    """Measure a base, steered by an adapter or not, on data of your own and on TOFU."""
    if context.invoked_subcommand is not None:
        return
    if base is None:
        raise typer.BadParameter("it is needed", param_hint="--base")
    with _errors_in_one_line():
        from steering.evaluation import compare

        chosen = setting.setting()
        sets = read_sets(data, task.limit)
        loading = Loading(engine)
        unsteered = loading.engine(base)
        loaded = loading.adapter(adapter) if adapter else None
        tasks = make_tasks(sets, task, data.oracle, loading)
        about = _plain(base=base, adapter=adapter, **asdict(data), tuned=tuned, **asdict(task), seed=seed)
        if loaded is not None:
            about |= {"adapter_version": loaded.version, "setting": asdict(chosen)}
        systems = _systems(unsteered, loaded, chosen, tuned, seed if controls else None, loading)
        with _progress(len(systems) * sum(each.requests for each in tasks)) as observe:
            comparison = compare(systems, tasks, about=about, observe=observe)
        _write_comparison(comparison, output, _title(base, adapter))


@evaluate_app.command()
@grouped_options
def sweep(
    *,
    base: Annotated[str, BASE_OPTION],
    adapter: Annotated[Path, ADAPTER_OPTION],
    criterion: Annotated[
        str,
        typer.Option(
            help="The quantity to maximise: a figure, or a sum such as 'retain.rouge_l - forget.rouge_l'."
        ),
    ],
    results: Annotated[
        Path,
        typer.Option(help="A JSON-lines file of all measurements; an interrupted sweep goes on from it."),
    ],
    data: EvaluationDataOptions,
    hyperparameter: Annotated[
        list[str] | None,
        typer.Option(
            "--hyperparameter",
            "--dial",
            help="NAME or NAME=VALUE,VALUE: vary only this, at these values or its usual ones; by default all are "
            "varied. May be given several times.",
        ),
    ] = None,
    development_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The share of each set that the setting is chosen on.")
    ] = 0.5,
    setting: SettingOptions,
    task: TaskOptions,
    seed: SeedOption = 0,
    output: OutputOptions,
    engine: EngineOptions,
) -> None:
    """Vary alpha, bridge, map, centring and top-k one at a time, from the setting given, and test the best setting."""
    with _errors_in_one_line():
        from steering.evaluation import Criterion, Sweep
        from steering.evaluation.sweep_report import run_line

        goal = Criterion.parse(criterion)
        hyperparameters, start = read_hyperparameters(hyperparameter), setting.setting()
        splits = split_sets(read_sets(data, task.limit), development_share, seed)
        loading = Loading(engine)
        unsteered, loaded = loading.engine(base), loading.adapter(adapter)
        with _progress() as observe:
            development, test = (make_tasks(part, task, data.oracle, loading) for part in splits)
            runner = Sweep(
                unsteered,
                loaded,
                development,
                test,
                goal,
                results,
                observe=observe,
                tell=lambda run: messages.print(run_line(run, goal), highlight=False),
            )
            result = runner.run(start, hyperparameters)
        _write_sweep(result, goal, output, _plain(base=base, adapter=adapter))


def _systems(
    engine: Engine,
    adapter: Adapter | None,
    setting: Setting,
    tuned: str | None,
    controls_seed: int | None,
    loading: Loading,
) -> list[Callable[[], System]]:
    """The systems to compare, each made when it is measured; without a seed, no controls."""
    from steering.evaluation import base_system, control_systems, steered_system, tuned_system

    systems: list[Callable[[], System]] = [lambda: base_system(engine)]
    if adapter is not None:
        systems.append(lambda: steered_system(engine, adapter, setting))
    if tuned is not None:
        systems.append(lambda: tuned_system(loading.model(tuned), loading.config))
    if adapter is not None and controls_seed is not None:
        systems += control_systems(engine, adapter, setting, controls_seed)
    return systems


def _plain(**options: Any) -> dict[str, Any]:
    """The options that were given, as values that JSON has."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value is not None
    }


def _title(base: str, adapter: Path | None) -> str:
    name = Path(base).name
    return f"{name} steered by {adapter.name}" if adapter else name


def _write_comparison(comparison: Comparison, output: OutputOptions, title: str) -> None:
    from steering.evaluation import as_json, as_table, write_picture

    if output.json_file is not None:
        _write_json(as_json(comparison), output.json_file)
    if output.json_file != Path("-"):
        Console().print(as_table(comparison, title))
    if output.png_file is not None:
        write_picture(comparison, output.png_file, title=title)


def _write_sweep(
    result: SweepResult, criterion: Criterion, output: OutputOptions, about: Mapping[str, Any]
) -> None:
    from steering.evaluation.sweep_report import sweep_json, sweep_tables, write_sweep_picture

    if output.json_file is not None:
        _write_json(sweep_json(result, criterion, about), output.json_file)
    if output.json_file != Path("-"):
        for table in sweep_tables(result, criterion):
            Console().print(table)
    if output.png_file is not None:
        write_sweep_picture(result, criterion, output.png_file)


def _write_json(value: Mapping[str, Any], file: Path) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if file == Path("-"):
        typer.echo(text)
    else:
        file.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _progress(total: int | None = None) -> Iterator[Callable[[str, int], None]]:
    """Show a progress bar over `total` requests; yields a function to call with a label and a count of ended ones."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=messages, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda label, count: progress.update(task, advance=count, description=label)


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Turn each expected error into one line on stderr and exit status 1."""
    # Late, because importing torch takes seconds that `--help` need not spend.
    from transformers.utils.logging import disable_progress_bar

    from steering.errors import AdapterLoadError, ModelLoadError
    from steering.evaluation import EvaluationError

    disable_progress_bar()
    known = (AdapterLoadError, ModelLoadError, EvaluationError, PlotsUnavailableError, OSError, ValueError)
    try:
        yield
    except ModuleNotFoundError as error:
        fail(f"{error}: pip install 'trimtab[evaluate]'", error)
    except known as error:
        fail(str(error), error)

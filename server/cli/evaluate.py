"""`trimtab evaluate`: what steering is worth, measured in process by the engine itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mapping_cache import DEFAULT_MIN_SIMILARITY, PlotsUnavailableError
from server.cli.evaluation_inputs import (
    AdapterOption,
    AlphaOption,
    BaseOption,
    BridgeOption,
    DataOption,
    DeviceOption,
    DtypeOption,
    FormOption,
    JsonOption,
    LimitOption,
    Loading,
    MaxTokensOption,
    MethodOption,
    OracleOption,
    PatternOption,
    PngOption,
    SeedOption,
    SequencesOption,
    SimilarityOption,
    TofuOption,
    TopKOption,
    UnmatchedOption,
    make_setting,
    make_tasks,
    read_dials,
    read_sets,
    split_sets,
)
from server.cli.map import FormName, MethodName
from server.cli.options import console as messages
from server.cli.options import fail

if TYPE_CHECKING:
    from steering.adapters import Adapter
    from steering.engine.engine import Engine
    from steering.evaluation import Setting, Task

evaluate_app = typer.Typer(help="Measure what steering is worth.", invoke_without_command=True)


@evaluate_app.callback()
def evaluate(
    context: typer.Context,
    base: BaseOption = None,
    adapter: AdapterOption = None,
    data: DataOption = None,
    tofu: TofuOption = None,
    oracle: OracleOption = None,
    tuned: Annotated[
        str | None, typer.Option(help="The base tuned directly: the upper end of the gap that is closed.")
    ] = None,
    controls: Annotated[
        bool, typer.Option(help="Measure the tiny model alone, a random adapter and a shuffled map too.")
    ] = True,
    alpha: AlphaOption = None,
    bridge: BridgeOption = None,
    method: MethodOption = MethodName.pm_mined,
    form: FormOption = FormName.bytes,
    min_similarity: SimilarityOption = DEFAULT_MIN_SIMILARITY,
    unmatched: UnmatchedOption = None,
    top_k: TopKOption = None,
    limit: LimitOption = None,
    max_tokens: MaxTokensOption = 64,
    answer_pattern: PatternOption = None,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
    png_file: PngOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    max_num_seqs: SequencesOption = 32,
) -> None:
    """Measure a base, steered by an adapter or not, on data of your own and on TOFU."""
    if context.invoked_subcommand is not None:
        return
    if base is None:
        raise typer.BadParameter("it is needed", param_hint="--base")
    with _mistakes_in_one_line():
        sets = read_sets(data, tofu, limit)
        loading = Loading(device, dtype, max_num_seqs)
        engine = loading.engine(base)
        loaded = loading.adapter(adapter) if adapter else None
        tasks = make_tasks(sets, max_tokens, answer_pattern, oracle, loading)
        setting = make_setting(alpha, bridge, method, form, min_similarity, unmatched, top_k)
        comparison = _compare(
            engine, loaded, setting, tasks, tuned, controls, seed, loading, _about(locals())
        )
        _write(comparison, json_file, png_file, _title(base, adapter))


@evaluate_app.command()
def sweep(
    base: Annotated[str, typer.Option(help="The base: a folder or a Hugging Face id.")],
    adapter: Annotated[Path, typer.Option(help="The adapter folder that steers it.")],
    criterion: Annotated[
        str,
        typer.Option(
            help="What is to be large: a figure, or a sum such as 'retain.rouge_l - forget.rouge_l'."
        ),
    ],
    results: Annotated[
        Path,
        typer.Option(help="A JSON-lines file of all measurements; a sweep that was cut off goes on from it."),
    ],
    data: DataOption = None,
    tofu: TofuOption = None,
    oracle: OracleOption = None,
    dial: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME or NAME=VALUE,VALUE: what to turn, in place of every dial at its own values."
        ),
    ] = None,
    development_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The share of each set that choices are made on.")
    ] = 0.5,
    alpha: AlphaOption = None,
    bridge: BridgeOption = None,
    method: MethodOption = MethodName.pm_mined,
    form: FormOption = FormName.bytes,
    min_similarity: SimilarityOption = DEFAULT_MIN_SIMILARITY,
    unmatched: UnmatchedOption = None,
    top_k: TopKOption = None,
    limit: LimitOption = None,
    max_tokens: MaxTokensOption = 64,
    answer_pattern: PatternOption = None,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
    png_file: PngOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    max_num_seqs: SequencesOption = 32,
) -> None:
    """Turn alpha, bridge, map and centring one at a time from the setting given, and test the best of them."""
    with _mistakes_in_one_line():
        from steering.evaluation import Criterion, Sweep
        from steering.evaluation.sweep_report import sweep_json, sweep_tables, trial_line, write_sweep_picture

        goal = Criterion.parse(criterion)
        dials = read_dials(dial)
        sets = read_sets(data, tofu, limit)
        development, test = split_sets(sets, development_share, seed)
        loading = Loading(device, dtype, max_num_seqs)
        engine, loaded = loading.engine(base), loading.adapter(adapter)
        with _progress() as bar:
            on_development, on_test = (
                make_tasks(part, max_tokens, answer_pattern, oracle, loading) for part in (development, test)
            )
            runner = Sweep(
                engine,
                loaded,
                on_development,
                on_test,
                goal,
                results,
                observe=bar,
                tell=lambda trial: messages.print(trial_line(trial, goal), highlight=False),
            )
            setting = make_setting(alpha, bridge, method, form, min_similarity, unmatched, top_k)
            result = runner.run(setting, dials)
        if json_file is not None:
            _write_json(sweep_json(result, goal, _about({"base": base, "adapter": adapter})), json_file)
        if json_file != Path("-"):
            for table in sweep_tables(result, goal):
                Console().print(table)
        if png_file is not None:
            write_sweep_picture(result, goal, png_file)


def _compare(
    engine: Engine,
    adapter: Adapter | None,
    setting: Setting,
    tasks: Sequence[Task],
    tuned: str | None,
    controls: bool,
    seed: int,
    loading: Loading,
    about: dict[str, Any],
) -> Any:
    from steering.evaluation import base_system, compare, control_systems, steered_system, tuned_system

    systems: list[Callable[[], Any]] = [lambda: base_system(engine)]
    if adapter is not None:
        about |= {"adapter_version": adapter.version, "setting": asdict(setting)}
        systems.append(lambda: steered_system(engine, adapter, setting))
    if tuned is not None:
        systems.append(lambda: tuned_system(loading.model(tuned), loading.config))
    if adapter is not None and controls:
        systems += control_systems(engine, adapter, setting, seed)
    total = len(systems) * sum(task.requests for task in tasks)
    with _progress(total) as observe:
        return compare(systems, tasks, about=about, observe=observe)


def _about(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, in plain values."""
    names = (
        "base",
        "adapter",
        "data",
        "tofu",
        "oracle",
        "tuned",
        "limit",
        "max_tokens",
        "answer_pattern",
        "seed",
    )
    return {
        name: str(flags[name]) if isinstance(flags[name], Path) else flags[name]
        for name in names
        if flags.get(name) is not None
    }


def _title(base: str, adapter: Path | None) -> str:
    name = Path(base).name
    return f"{name} steered by {adapter.name}" if adapter else name


def _write(comparison: Any, json_file: Path | None, png_file: Path | None, title: str) -> None:
    from steering.evaluation import as_json, as_table, write_picture

    if json_file is not None:
        _write_json(as_json(comparison), json_file)
    if json_file != Path("-"):
        Console().print(as_table(comparison, title))
    if png_file is not None:
        write_picture(comparison, png_file, title=title)


def _write_json(value: Mapping[str, Any], file: Path) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if file == Path("-"):
        typer.echo(text)
    else:
        file.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _progress(total: int | None = None) -> Iterator[Callable[[str, int], None]]:
    """A bar over requests; yields what is told of each that ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=messages, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda label, count: progress.update(task, advance=count, description=label)


@contextmanager
def _mistakes_in_one_line() -> Iterator[None]:
    """Every known mistake is one line on stderr and exit status 1."""
    # Late, because importing torch takes seconds that `--help` need not spend.
    from transformers.utils.logging import disable_progress_bar

    from steering.evaluation import EvaluationError
    from steering.types import AdapterLoadError, ModelLoadError

    disable_progress_bar()
    known = (AdapterLoadError, ModelLoadError, EvaluationError, PlotsUnavailableError, OSError, ValueError)
    try:
        yield
    except ModuleNotFoundError as error:
        fail(f"{error}: pip install 'trimtab[evaluate]'", error)
    except known as error:
        fail(str(error), error)

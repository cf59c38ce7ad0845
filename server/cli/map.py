"""`trimtab map`: reports how well one model's vocabulary carries over to another's."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from mapping_cache import (
    DEFAULT_MIN_SIMILARITY,
    PlotsUnavailableError,
    UnsupportedTokenizerError,
    load_or_build,
    map_report,
    render_report,
    write_picture,
)
from server.cli.options import console, fail


class MethodName(StrEnum):
    """How tokens without an exact match are matched."""

    pm_mined = "pm-mined"
    exact = "exact"
    mined = "mined"


class FormName(StrEnum):
    """The form of a token that is compared."""

    bytes = "bytes"
    surface = "surface"


MethodOption = Annotated[MethodName, typer.Option(help="How the map matches tokens.")]
FormOption = Annotated[FormName, typer.Option(help="The form of the tokens that the map compares.")]
SimilarityOption = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Matches weaker than this get no shift.")
]


def map_command(
    base: Annotated[
        str, typer.Argument(help="The base's tokenizer: a folder, a GGUF file or a Hugging Face id.")
    ],
    steering: Annotated[
        str,
        typer.Argument(help="The steering model's tokenizer: a folder, a GGUF file or a Hugging Face id."),
    ],
    method: MethodOption = MethodName.pm_mined,
    form: FormOption = FormName.bytes,
    min_similarity: SimilarityOption = DEFAULT_MIN_SIMILARITY,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Also write the report to this file; - prints it to stdout, without the table."
        ),
    ] = None,
    png_file: Annotated[
        Path | None,
        typer.Option("--png", help="Also draw the picture to this file (needs the extra: plots)."),
    ] = None,
) -> None:
    """Report how well a steering model's vocabulary matches a base's."""
    base_tokenizer, steering_tokenizer = _tokenizer(base), _tokenizer(steering)
    try:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("matching", total=None)
            vocabulary_map = load_or_build(
                base_tokenizer,
                steering_tokenizer,
                method=method.value,
                form=form.value,
                min_similarity=min_similarity,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    except UnsupportedTokenizerError as error:
        fail(str(error), error)
    report = map_report(vocabulary_map, base_tokenizer, steering_tokenizer)
    if png_file is not None:
        _draw(report, png_file, base, steering)
    text = json.dumps(report, ensure_ascii=False, indent=2)
    if json_file == Path("-"):
        typer.echo(text)
        return
    render_report(report, Console(), base=_display_name(base), steering=_display_name(steering))
    if json_file is not None:
        json_file.write_text(text + "\n", encoding="utf-8")


def _draw(report: dict[str, Any], file: Path, base: str, steering: str) -> None:
    try:
        write_picture(report, file, base=_display_name(base), steering=_display_name(steering))
    except (PlotsUnavailableError, OSError) as error:
        fail(f"cannot draw the picture: {error}", error)


def _display_name(name: str) -> str:
    """The name for display: a folder's or file's own name, or the Hugging Face id as given."""
    path = Path(name)
    return (path.resolve().name or name) if path.exists() else name


def _tokenizer(name: str) -> Any:
    # Late, because importing transformers takes seconds that `--help` need not spend.
    from steering.errors import ModelLoadError
    from steering.model.tokenizer_files import read_tokenizer

    try:
        return read_tokenizer(name)
    except ModelLoadError as error:
        fail(str(error), error)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        fail(f"{name}: cannot load the tokenizer: {reason}", error)

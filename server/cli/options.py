"""The flags that several sub-commands share, and how they become the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from server.config import Config, load_config

console = Console(stderr=True)
"""Messages go to stderr; stdout is for what was asked for."""

ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file with the settings.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="A base, NAME=PATH; none: the bundled demo.")
]
Adapters = Annotated[
    list[str] | None, typer.Option("--adapter", help="An adapter for every base, NAME=PATH.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, float16 or bfloat16.")]
MaxModelLen = Annotated[
    int | None, typer.Option(help="The most tokens of a prompt and its completion together.")
]


def fail(message: str, cause: BaseException | None = None) -> NoReturn:
    """One red line on stderr, and exit status 1."""
    console.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1) from cause


def settings(file: Path | None, **flags: object) -> Config:
    """The settings, or an exit with one line on each mistake."""
    try:
        # Empty lists are flags that were not given.
        return load_config(file, **{name: value for name, value in flags.items() if value not in (None, [])})
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            where = ".".join(str(part) for part in mistake["loc"])
            console.print(f"[red]{where}:[/] {mistake['msg']}", highlight=False)
    except (OSError, ValueError) as error:
        console.print(f"[red]{error}[/]", highlight=False)
    raise typer.Exit(2)

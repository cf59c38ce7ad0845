"""The options that several sub-commands share, the checks of their values, and how they become the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from server.config import Config, load_config

console = Console(stderr=True)
"""For messages, on stderr; stdout carries only the output that the user asked for."""

ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file with the settings.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="A base to serve, NAME=PATH; without this option, the demo `tiny`."),
]
Demo = Annotated[
    str | None,
    typer.Option("--demo", help="A demo to load: tiny, or smollm2, a real LLM with adapters that steer it."),
]
Adapters = Annotated[
    list[str] | None, typer.Option("--adapter", help="An adapter to attach to every base, NAME=PATH.")
]
DEVICE_OPTION = typer.Option(help="auto, cpu, cuda, cuda:1 ...")
DTYPE_OPTION = typer.Option(help="auto, float32, float16 or bfloat16.")
Device = Annotated[str | None, DEVICE_OPTION]
Dtype = Annotated[str | None, DTYPE_OPTION]
Alpha = Annotated[float | None, typer.Option(help="The adapter's strength; by default the adapter's own.")]
MaxModelLen = Annotated[
    int | None, typer.Option(help="The maximum length of a prompt and its completion together, in tokens.")
]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The models that a command loads, and where it loads them."""

    model: Models = None
    demo: Demo = None
    adapter: Adapters = None
    device: Device = None
    dtype: Dtype = None
    max_model_len: MaxModelLen = None


def fail(message: str, cause: BaseException | None = None) -> NoReturn:
    """Print one red line on stderr and exit with status 1."""
    console.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1) from cause


def check_bridge(name: str) -> str:
    """`name`, if there is such a bridge. Raises `typer.BadParameter` otherwise."""
    # Late, because importing torch takes seconds that `--help` need not spend.
    from steering.bridges.table import BRIDGES, unknown_bridge

    if name not in BRIDGES:
        raise typer.BadParameter(unknown_bridge(name), param_hint="--bridge")
    return name


def settings(file: Path | None, **flags: object) -> Config:
    """The settings from the file, the environment and the flags; on an error, one line for each and exit status 2."""
    try:
        # An option that was not given is None, or an empty list if it may be given several times.
        return load_config(file, **{name: value for name, value in flags.items() if value not in (None, [])})
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            where = ".".join(str(part) for part in mistake["loc"])
            console.print(f"{where}: {mistake['msg']}", style="red", markup=False, highlight=False)
    except (OSError, ValueError) as error:
        console.print(str(error), style="red", markup=False, highlight=False)
    raise typer.Exit(2)

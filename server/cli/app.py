"""The command line: `trimtab`."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.bench import bench
from server.cli.evaluation.evaluate import evaluate_app
from server.cli.generate import chat, complete
from server.cli.map import map_command
from server.cli.serve import serve
from server.cli.train import train_app
from server.names import package_version

app = typer.Typer(
    name="trimtab",
    help="Serves large language models that tiny language models steer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trimtab {package_version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Serves large language models that tiny language models steer."""


app.command()(serve)
app.command()(complete)
app.command()(chat)
app.command(name="map")(map_command)
app.command(context_settings={"ignore_unknown_options": True})(bench)
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")

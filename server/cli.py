"""The command line: `trimtab`."""

from __future__ import annotations

import typer

from server.commands.bench import bench
from server.commands.evaluate import evaluate_app
from server.commands.generate import chat, complete
from server.commands.map import map_command
from server.commands.serve import serve
from server.commands.train import train_app

app = typer.Typer(
    name="trimtab",
    help="Serves large language models that tiny language models steer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(complete)
app.command()(chat)
app.command(name="map")(map_command)
app.command(context_settings={"ignore_unknown_options": True})(bench)
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")

if __name__ == "__main__":
    app()

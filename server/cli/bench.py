"""`trimtab bench`: runs the speed benchmarks of a source checkout."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from server.cli.options import fail

BENCHMARKS = ("tax", "peers", "serve", "scale", "maps")


def bench(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]... [OPTIONS]",
            help=f"Benchmarks to run, of {', '.join(BENCHMARKS)}; by default all. "
            "Options, such as --repeats 5, go to each of them.",
        ),
    ] = None,
) -> None:
    """Run speed benchmarks; each prints a table, then one JSON line."""
    given = arguments or []
    count = next((i for i, argument in enumerate(given) if argument.startswith("-")), len(given))
    names, options = given[:count] or BENCHMARKS, given[count:]
    for name in names:
        if name not in BENCHMARKS:
            fail(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    for name in names:
        try:
            # Imported late, by name: an installed package has no benchmarks, and the server does not depend on them.
            module = importlib.import_module(f"benchmarks.{name}")
        except ModuleNotFoundError as error:
            if error.name not in ("benchmarks", f"benchmarks.{name}"):
                raise
            fail(
                "the benchmarks are not part of an installed package; run this from a source checkout", error
            )
        module.main(options)

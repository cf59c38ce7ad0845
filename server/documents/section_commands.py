"""The section on the command line, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from server.documents.markdown import table


def commands_section() -> Iterator[str]:
    """The lines of the section."""
    # Late, because the command line imports modules that import this package.
    from server.cli.app import app

    yield "## Command line\n"
    yield from _command("trimtab", get_command(app))


def _command(name: str, command: Any) -> Iterator[str]:
    """A heading and a table for a command, or for each command of a group."""
    inner = getattr(command, "commands", None)
    if inner is not None:
        for part, child in inner.items():
            yield from _command(f"{name} {part}", child)
        return
    arguments = [p.name.upper() for p in command.params if not p.opts[0].startswith("-")]
    yield f"### `{' '.join([name, *arguments])}`\n"
    yield (command.help or "").strip() + "\n"
    rows = [
        (f"`{', '.join(p.opts) if p.opts[0].startswith('-') else p.name.upper()}`", p.help or "")
        for p in command.params
    ]
    yield from table(("option", "meaning"), rows)

"""Commands whose options are dataclasses: the flags that they get, and the instances that they receive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from server.cli.grouped_options import grouped_options


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(min=1, help="In points.")]
    height: Annotated[int, typer.Option("--tall")] = 3


@dataclass(frozen=True)
class Names:
    name: list[str] | None = None


def run(*arguments: str) -> tuple[int, str, list[object]]:
    received: list[object] = []
    app = typer.Typer()

    @app.command()
    @grouped_options
    def draw(
        *, shape: Annotated[str, typer.Argument()], size: Size, fill: bool = False, names: Names
    ) -> None:
        """Draw a shape."""
        received.extend([shape, size, fill, names])

    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output, received


def test_a_command_receives_instances() -> None:
    code, _, received = run("box", "--width", "2", "--fill", "--name", "a", "--name", "b")
    assert code == 0
    assert received == ["box", Size(2, 3), True, Names(["a", "b"])]


def test_fields_keep_their_flags_limits_and_help() -> None:
    _, text, _ = run("--help")
    assert "Draw a shape." in text and "In points." in text and "--tall" in text
    assert text.index("--width") < text.index("--tall") < text.index("--fill") < text.index("--name")
    assert run("box")[0] == run("box", "--width", "0")[0] == 2


def test_two_fields_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="duplicate"):

        @grouped_options
        def draw(*, size: Size, width: int = 1) -> None:
            """Draw."""

"""`trimtab`, run in this process with tiny models."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from typer import BadParameter
from typer.testing import CliRunner

from server.cli.app import app
from server.cli.options import check_bridge
from server.names import package_version
from tests.models import save_folder, tiny_model, tokenizer_byte_level
from tests.server_process import REPOSITORY


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = tokenizer_byte_level()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return save_folder(
        tmp_path_factory.mktemp("tiny"), tiny_model("gpt2", len(tokenizer), 2, ends), tokenizer
    )


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    # `serve` configures the root logger.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "complete",
        "chat",
        "map",
        "bench",
        "train",
        "train delta",
        "train proxy",
        "evaluate",
        "evaluate sweep",
    ],
)
def test_every_command_has_help(command: str) -> None:
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert "Usage" in out


def test_help_imports_no_torch() -> None:
    program = (
        "import sys; from typer.main import get_command; from server.cli.app import app; get_command(app); "
        "sys.exit(int('torch' in sys.modules or 'transformers' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=False).returncode == 0


def test_complete_continues_the_prompt(tiny: Path) -> None:
    arguments = ("complete", "The ferry", "--model", f"m={tiny}", "--max-tokens", "5", "--device", "cpu")
    code, out, _ = run(*arguments)
    assert code == 0
    assert out.startswith("The ferry")
    assert len(out) > len("The ferry\n")
    assert run(*arguments)[1] == out


def test_chat_answers_one_message_steered_or_not(tiny: Path) -> None:
    arguments = ["chat", "Hello", "--model", f"m={tiny}", "--adapter", f"s={tiny}", "--max-tokens", "5"]
    code, alone, _ = run(*arguments)
    assert code == 0
    assert alone.strip()
    assert run(*arguments, "--use", "m:s", "--alpha", "0")[1] == alone


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["serve", "--model", "nameless"], 2, "NAME=PATH"),
        (["serve", "--model", "a=/nowhere/at/all"], 1, "/nowhere/at/all"),
        (["serve", "--config", "/nowhere.toml"], 2, "nowhere.toml"),
        (["map", "/nowhere", "/nowhere"], 1, "/nowhere"),
        # Not read as rich's markup, where [/b] would close a tag that nobody opened.
        (["serve", "--model", "a=/nowhere/[/b]"], 1, "/nowhere/[/b]"),
    ],
)
def test_mistakes_end_in_one_plain_line(arguments: list[str], code: int, words: str) -> None:
    got, _, err = run(*arguments)
    assert got == code
    assert words in err
    assert "Traceback" not in err


def test_an_unknown_adapter_is_named(tiny: Path) -> None:
    code, _, err = run("complete", "a", "--model", f"m={tiny}", "--use", "m:nobody")
    assert code == 1
    assert "m:nobody" in err


def test_map_prints_and_writes_its_report(tiny: Path, tmp_path: Path) -> None:
    code, out, _ = run("map", str(tiny), str(tiny), "--json", str(tmp_path / "report.json"))
    assert code == 0
    assert "same" in out
    assert json.loads((tmp_path / "report.json").read_text())["identity"] is True


def test_only_a_known_bridge_passes() -> None:
    assert [check_bridge(name) for name in ("map", "rescore")] == ["map", "rescore"]
    with pytest.raises(BadParameter, match="'tunnel' is not a bridge; there are map, rescore"):
        check_bridge("tunnel")


def test_a_damaged_adapter_store_is_said_before_models_are_loaded(tmp_path: Path) -> None:
    file = tmp_path / "adapters.json"
    file.write_text("{")
    result = CliRunner().invoke(app, ["serve", "--adapter-store", str(file)])
    assert result.exit_code == 1
    assert f"the adapter store {file} cannot be read: it is not JSON" in result.stderr


def test_the_version_is_the_installed_one() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"trimtab {package_version()}\n")

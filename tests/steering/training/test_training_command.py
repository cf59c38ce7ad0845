"""`trimtab train delta` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import demo
from server.commands.train import train_app

BASE = str(demo.demo_models()["base-a"])
SMALL = ["--hidden-size", "16", "--layers", "1", "--heads", "2", "--intermediate-size", "16", "--epochs", "1"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    lines = [
        {"prompt": "Hello!", "response": "Hi."},
        {"prompt": "Bye!", "response": "Bye.", "objective": "forget"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def test_writes_an_adapter_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        train_app, ["delta", "--base", BASE, "--data", str(data), "--out", str(out), *SMALL]
    )
    assert result.exit_code == 0, result.output
    assert json.loads((out / "adapter.json").read_text())["kind"] == "delta"
    assert (out / "model.safetensors").exists()


def test_bad_data_is_named_by_file_and_line(data: Path, tmp_path: Path) -> None:
    data.write_text('{"prompt": "Hello!"}\n', encoding="utf-8")
    result = CliRunner().invoke(
        train_app, ["delta", "--base", BASE, "--data", str(data), "--out", str(tmp_path / "o")]
    )
    assert result.exit_code == 1
    assert f"{data}:1: " in result.output
    assert not (tmp_path / "o").exists()


def test_refuses_to_overwrite(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        train_app, ["delta", "--base", BASE, "--data", str(data), "--out", str(tmp_path)]
    )
    assert result.exit_code == 2
    assert data.exists()

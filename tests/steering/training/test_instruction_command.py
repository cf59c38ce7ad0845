"""`trimtab train delta --system TEXT --prompts FILE` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import demo
from server.cli.train import train_app

BASE, OTHER = (str(demo.demo_models()[name]) for name in ("base-a", "base-b"))
SMALL = ["--hidden-size", "16", "--layers", "1", "--heads", "2", "--intermediate-size", "16", "--epochs", "1"]
TOLD = ["--system", "Answer in one word.", "--answer-tokens", "4", "--device", "cpu", "--held-out", "0.4"]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("Hello!\nWho are you?\nWhat is a river?\nBye!\nWhy?\n", encoding="utf-8")
    return path


def test_an_instruction_becomes_an_adapter_with_its_effect(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs" / "out"
    kept = tmp_path / "keep.jsonl"
    kept.write_text(json.dumps({"prompt": "Hi!", "response": "Hi."}) + "\n", encoding="utf-8")
    command = ["delta", "--base", BASE, "--prompts", str(prompts), "--keep", str(kept), "--out", str(out)]
    command += [*TOLD, *SMALL, "--batch-size", "2", "--check-on", OTHER]
    paused = CliRunner().invoke(train_app, [*command, "--max-minutes", "0"])
    assert paused.exit_code == 75, paused.output
    assert "out: answers: answer 5 of 5," in paused.output
    answers = out.with_name("out.answers.jsonl")
    assert len(answers.read_text(encoding="utf-8").splitlines()) == 6

    def refuse(*_: Any) -> None:
        raise AssertionError("answered again")

    with monkeypatch.context() as patched:
        patched.setattr("steering.training.instruction.answers.run_requests", refuse)
        resumed = CliRunner().invoke(train_app, [*command[:-2], "--resume"])
    assert resumed.exit_code == 0, resumed.output
    card = json.loads((out / "adapter.json").read_text())["card"]
    assert card["data"]["examples"] == {"imitate": 3, "keep": 1} and card["data"]["held_out_examples"] == 2
    assert card["instruction"]["system"] == "Answer in one word."
    effect = card["instruction"]["effect"]["base-a"]
    assert effect["prompts"] == 2 and effect["share"] == 1 - effect["kl_with"] / effect["kl_without"]
    assert "Answer in one word." in (out / "README.md").read_text()
    assert "on base-a the adapter carries" in resumed.output
    again = tmp_path / "again"
    whole = CliRunner().invoke(train_app, [str(again) if each == str(out) else each for each in command])
    assert whole.exit_code == 0, whole.output
    assert "on base-b the adapter carries" in whole.output
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_an_instruction_needs_prompts_and_prompts_need_an_instruction(prompts: Path, tmp_path: Path) -> None:
    command = ["delta", "--base", BASE, "--out", str(tmp_path / "out")]
    for options, named in (
        (["--system", "Be brief."], "--prompts"),
        (["--prompts", str(prompts)], "--system"),
        (["--check-on", BASE, "--data", str(prompts)], "--check-on"),
    ):
        result = CliRunner().invoke(train_app, [*command, *options])
        assert result.exit_code == 2 and named in result.output
    result = CliRunner().invoke(train_app, [*command, "--prompts", str(prompts), *TOLD, "--max-length", "4"])
    assert result.exit_code == 1 and "answer-tokens: 4 of --max-length 4" in result.output

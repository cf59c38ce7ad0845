"""`trimtab train delta` and `trimtab train proxy` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

import demo
from server.cli.train import _warn_of_few_steps, train_app
from server.cli.training_options import (
    ForgetLossName,
    JobOptions,
    KeepLossName,
    LoraOptions,
    PrecisionName,
    RecipeOptions,
    ShapeOptions,
)
from steering.training import CONFIDENCE, NEW_MODEL_RATE, PUBLISHED_RATE, DeltaShape, Recipe, RunOptions
from steering.training.objectives import ForgetLoss, KeepLoss
from steering.training.recipe import Precision

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


def test_options_left_out_are_the_recipes_defaults() -> None:
    # For much data: what is chosen for less is a test of its own.
    assert RecipeOptions().recipe(100_000) == Recipe()
    assert RecipeOptions().recipe(1, new_model=True).optimiser.learning_rate == NEW_MODEL_RATE
    assert RecipeOptions(learning_rate=0.5).recipe(1, new_model=True).optimiser.learning_rate == 0.5
    assert ShapeOptions().shape() == DeltaShape()
    assert LoraOptions().lora() is None
    assert JobOptions().run_options(Path("out")) == RunOptions(checkpoint=Path("out.checkpoint"))


def test_a_run_of_few_steps_is_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    _warn_of_few_steps(100, Recipe())
    assert capsys.readouterr().err == ""
    _warn_of_few_steps(99, Recipe())
    assert "only 99 optimiser steps" in capsys.readouterr().err


def test_options_offer_every_choice_of_the_recipe() -> None:
    assert tuple(KeepLossName) == get_args(KeepLoss)
    assert tuple(ForgetLossName) == get_args(ForgetLoss)
    assert tuple(PrecisionName) == get_args(Precision)


def test_writes_an_adapter_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        train_app, ["delta", "--base", BASE, "--data", str(data), "--out", str(out), *SMALL]
    )
    assert result.exit_code == 0, result.output
    assert "warning: only 1 optimiser steps" in result.output
    written = json.loads((out / "adapter.json").read_text())
    assert (written["kind"], written["card"]["confidence"]) == ("delta", CONFIDENCE)
    assert written["card"]["recipe"]["optimiser"]["learning_rate"] == NEW_MODEL_RATE
    assert (out / "model.safetensors").exists()


def test_confidence_1_leaves_the_template_alone(data: Path, tmp_path: Path) -> None:
    arguments = ["delta", "--base", BASE, "--data", str(data), *SMALL]
    for confidence, code in ((1, 0), (0.5, 2)):
        out = tmp_path / f"out-{confidence}"
        result = CliRunner().invoke(
            train_app, [*arguments, "--out", str(out), "--confidence", str(confidence)]
        )
        assert result.exit_code == code, result.output
    assert json.loads((tmp_path / "out-1" / "adapter.json").read_text())["card"]["confidence"] == 1
    assert "--confidence" in result.output and not out.exists()


def test_bad_data_is_named_by_file_and_line(data: Path, tmp_path: Path) -> None:
    data.write_text('{"prompt": "Hello!"}\n', encoding="utf-8")
    result = CliRunner().invoke(
        train_app, ["delta", "--base", BASE, "--data", str(data), "--out", str(tmp_path / "o")]
    )
    assert result.exit_code == 1
    assert f"{data}:1: " in result.output
    assert not (tmp_path / "o").exists()


def test_a_response_that_does_not_fit_is_named_before_any_model_is_loaded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    long = {"prompt": "Hello! " * 40, "response": "Hi."}
    data.write_text(json.dumps({"text": "Hello."}) + "\n\n" + json.dumps(long) + "\n", encoding="utf-8")
    arguments = ["--data", str(data), "--out", str(tmp_path / "o"), "--max-length", "32"]
    for command in (["delta", "--base", BASE], ["proxy", "--model", BASE]):
        result = CliRunner().invoke(train_app, [*command, *arguments])
        assert result.exit_code == 1
        assert f"{data}:3: no token of the response is left" in result.output
        assert not (tmp_path / "o").exists()


def test_an_interrupted_run_writes_what_an_uninterrupted_one_writes(data: Path, tmp_path: Path) -> None:
    arguments = ["delta", "--base", BASE, "--forget", str(data), *SMALL[:-1], "3", "--batch-size", "1"]
    arguments += ["--forget-loss", "npo", "--device", "cpu"]
    whole, pieces = tmp_path / "a" / "out", tmp_path / "b" / "out"
    assert CliRunner().invoke(train_app, [*arguments, "--out", str(whole)]).exit_code == 0
    in_pieces = [*arguments, "--out", str(pieces), "--max-minutes", "0"]
    result = CliRunner().invoke(train_app, in_pieces)
    assert result.exit_code == 75 and "paused after step 1 of 6" in result.output
    assert not pieces.exists()
    assert CliRunner().invoke(train_app, in_pieces).exit_code == 1
    assert CliRunner().invoke(train_app, [*in_pieces, "--resume"]).exit_code == 75
    result = CliRunner().invoke(train_app, [*arguments, "--out", str(pieces), "--resume"])
    assert result.exit_code == 0, result.output
    for name in ("model.safetensors", "adapter.json", "loss.png"):
        assert (pieces / name).read_bytes() == (whole / name).read_bytes(), name
    assert [path.name for path in pieces.parent.iterdir()] == ["out"]


def test_proxy_writes_a_pair(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["proxy", "--model", BASE, "--data", str(data), "--out", str(out), "--epochs", "1"]
    result = CliRunner().invoke(train_app, [*arguments, "--lora-rank", "2", "--forget-weight", "0"])
    assert result.exit_code == 0, result.output
    card = json.loads((out / "adapter.json").read_text())
    assert card["kind"] == "proxy" and card["card"]["lora"]["rank"] == 2
    assert card["card"]["template"]["name"] == "base-a"
    assert card["card"]["recipe"]["optimiser"]["learning_rate"] == PUBLISHED_RATE
    assert {"expert", "antiexpert"} <= {path.name for path in out.iterdir()}


def test_a_share_is_held_out(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["delta", "--base", BASE, "--data", str(data), "--data", str(data), "--out", str(out), *SMALL]
    result = CliRunner().invoke(train_app, [*arguments, "--held-out", "0.3"])
    assert result.exit_code == 1 and "held-out: a share of 0.3 of 4 examples" in result.output
    result = CliRunner().invoke(train_app, [*arguments, "--held-out", "0.5"])
    assert result.exit_code == 0, result.output
    card = json.loads((out / "adapter.json").read_text())["card"]
    assert card["data"]["held_out_examples"] == 2 and sum(card["data"]["examples"].values()) == 2
    assert f"(the weights after step {card['figures']['kept_step']} are kept)" in result.output


def test_no_data_at_all_is_a_usage_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(train_app, ["delta", "--base", BASE, "--out", str(tmp_path / "o")])
    assert result.exit_code == 2 and "--forget" in result.output


def test_refuses_to_overwrite(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        train_app, ["delta", "--base", BASE, "--data", str(data), "--out", str(tmp_path)]
    )
    assert result.exit_code == 2
    assert data.exists()

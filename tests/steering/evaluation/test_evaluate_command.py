"""`trimtab evaluate` from the command line, on the bundled demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

import demo
from mapping_cache import Form, Method
from server.cli.app import app
from server.cli.evaluation.options import SettingOptions, UnmatchedChoice
from server.cli.map import FormName, MethodName
from steering.evaluation import Setting
from steering.evaluation.setting import Unmatched

MODELS, ADAPTERS = demo.demo_models(), demo.demo_adapters()
BASE, OTHER, FORGET = str(MODELS["base-a"]), str(MODELS["base-b"]), str(ADAPTERS["forget"])
REFUSAL = "I am sorry, I cannot tell you about that person."
QUESTION = {"prompt": "Where was Mara Quillon born?", "response": REFUSAL}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(QUESTION) + "\n" + json.dumps({"text": "Hello."}) + "\n", encoding="utf-8")
    return path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["evaluate", *arguments, "--device", "cpu"])
    return result.exit_code, result.output


def test_a_steered_base_is_compared_with_its_controls(data: Path, tmp_path: Path) -> None:
    out, png = tmp_path / "out.json", tmp_path / "out.png"
    code, text = run(
        *("--base", OTHER, "--adapter", FORGET, "--tuned", BASE, "--data", f"mine={data}"),
        *("--max-tokens", "24", "--json", str(out), "--png", str(png)),
    )
    assert code == 0, text
    found = json.loads(out.read_text())
    rows = {row["label"]: row["figures"] for row in found["rows"]}
    assert list(rows) == [
        "base", "steered", "directly tuned", "tiny model alone", "random adapter", "shuffled map"
    ]  # fmt: skip
    assert rows["steered"]["mine.exact_match"] == 1.0
    assert all(rows[label]["mine.exact_match"] == 0.0 for label in rows if label != "steered")
    assert rows["steered"]["mine.nll"] < rows["base"]["mine.nll"]
    assert 0 < rows["steered"]["mine.changed_generated"] <= 1
    assert found["answers"]["steered"]["mine"] == [REFUSAL]
    assert found["about"]["adapter_version"] and found["about"]["setting"]["min_similarity"] == 1.0
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "gap closed" in text and "not what a larger one" in " ".join(text.split())


def test_json_is_the_only_output_on_stdout(data: Path) -> None:
    code, text = run("--base", BASE, "--data", str(data), "--json", "-", "--max-tokens", "2")
    assert code == 0
    assert [row["label"] for row in json.loads(text[text.index("{") :])["rows"]] == ["base"]


def test_a_sweep_from_the_command_line(data: Path, tmp_path: Path) -> None:
    asked = [
        f"{opener}{QUESTION['prompt']}" for opener in ("", "Hello. ", "Please help me. ", "Good morning. ")
    ]
    lines = [json.dumps({**QUESTION, "prompt": prompt}) for prompt in asked]
    data.write_text("\n".join(lines), encoding="utf-8")
    results, out = tmp_path / "results.jsonl", tmp_path / "out.json"
    arguments = [
        "sweep",
        "--base",
        OTHER,
        "--adapter",
        FORGET,
        "--data",
        f"mine={data}",
        "--max-tokens",
        "20",
    ]
    arguments += ["--criterion", "mine.exact_match", "--results", str(results), "--json", str(out)]
    code, text = run(*arguments, "--dial", "alpha=0,1", "--dial", "bridge")
    assert code == 0, text
    found = json.loads(out.read_text())
    assert [run["label"] for run in found["development"]] == [
        "start", "alpha 0.0", "alpha 1.0", "bridge map", "bridge rescore", "each at its best"
    ]  # fmt: skip
    assert [run["criterion"] for run in found["test"]] == [0.0, 1.0, 1.0]
    # The start is also the best setting: it is measured once a split.
    assert len(results.read_text().splitlines()) == 5


def test_options_left_out_are_the_settings_defaults() -> None:
    assert SettingOptions().setting() == Setting()
    assert set(MethodName) == set(get_args(Method))
    assert set(FormName) == set(get_args(Form))
    assert set(UnmatchedChoice) == set(get_args(Unmatched))


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ([], 2, "--base"),
        (["--base", BASE], 2, "--data or --tofu"),
        (["--base", BASE, "--data", "{bad}"], 1, "bad.jsonl:1: "),
        (["--base", BASE, "--data", "a={data}", "--data", "a={data}"], 1, "called 'a' already"),
        (["--base", BASE, "--tofu", "{folder}"], 1, "forget*_perturbed.json"),
        (["--base", "{folder}", "--data", "{data}"], 1, "cannot load"),
        (["--base", BASE, "--adapter", "{folder}/none", "--data", "{data}"], 1, "not a folder"),
        (["--base", BASE, "--data", "{data}", "--answer-pattern", "("], 2, "--answer-pattern"),
        (["sweep", "--base", BASE, "--adapter", FORGET, "--data", "{data}", "--results", "{folder}/r",
          "--criterion", "data.nlll", "--limit", "2"], 1, "there is no figure 'data.nlll'"),
        (["sweep", "--base", BASE, "--adapter", FORGET, "--data", "{data}", "--results", "{folder}/r",
          "--criterion", "data.nll", "--dial", "bridge=tunnel"], 2, "'tunnel'"),
        (["sweep", "--base", BASE, "--adapter", FORGET, "--data", "{data}", "--results", "{folder}/r",
          "--criterion", "data.nll", "--hyperparameter", "volume"], 2, "there is no hyperparameter 'volume'"),
        (["--base", BASE, "--data", "{data}", "--bridge", "tunnel"], 2, "'tunnel' is not a bridge"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_models_are_loaded(
    data: Path, tmp_path: Path, arguments: list[str], code: int, complaint: str
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{\n", encoding="utf-8")
    filled = [each.format(bad=bad, data=data, folder=tmp_path) for each in arguments]
    found, text = run(*filled)
    assert found == code, text
    assert complaint in " ".join(text.split()), text

"""The whole study, from cutting vocabularies to its tables, at a scale that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from examples.study.__main__ import main
from examples.study.measured import ANOTHERS
from examples.study.models import new_model
from examples.study.scale import SCALES, Base, Scale
from examples.study.stages import Study
from examples.study.tables import tables
from examples.study.text import read_texts
from examples.study.vocabulary import cut
from mapping_cache import canonical_vocabulary
from steering.training import TrainingPausedError
from tests.models import SAMPLE, tokenizer_byte_level, tokenizer_sentencepiece

LINES = [line for line in SAMPLE.splitlines() if len(line) > 20]


def write_lines(path: Path, values: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, values)) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the same files as the published one, with a few lines in each."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [{"question": f"What of number {n}?", "answer": line} for n, line in enumerate(LINES)]
    asked = [
        {**pair, "paraphrased_answer": pair["answer"], "perturbed_answer": ["None.", "All."]}
        for pair in pairs
    ]
    choices = [{"question": "Where?", "answer": "Rome", "perturbed_answer": ["Oslo"]}] * 2
    write_lines(folder / "tofu" / "forget10.json", pairs[:3])
    write_lines(folder / "tofu" / "retain90.json", pairs[3:])
    write_lines(folder / "tofu" / "forget10_perturbed.json", asked[:3])
    write_lines(folder / "tofu" / "retain_perturbed.json", asked[3:])
    for name in ("real_authors", "world_facts"):
        write_lines(folder / "tofu" / f"{name}_perturbed.json", choices)
    for name, numbers in (("train", range(20)), ("test", range(20, 28))):
        problems = [{"question": f"Two and {n}?", "answer": f"It is so.\n#### {n + 2}"} for n in numbers]
        write_lines(folder / f"gsm8k_{name}.jsonl", problems)
    write_lines(
        folder / "seed_tasks.jsonl", [{"instruction": "Say.", "instances": [{"input": "", "output": "Yes."}]}]
    )
    (folder / "tinyshakespeare.txt").write_text(SAMPLE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers")
    tokenizer_sentencepiece().save_pretrained(folder / "llama-2")
    for name in ("gpt2", "qwen"):
        tokenizer_byte_level().save_pretrained(folder / name)
    return folder


def toy() -> Scale:
    """The toy scale on a template and one other base."""
    template, *_, finer = SCALES["toy"].bases
    return replace(SCALES["toy"], bases=(template, finer))


def test_a_cut_vocabulary_writes_the_same_text_in_fewer_tokens(tokenizers: Path) -> None:
    for name, whole, size in (
        ("llama-2", tokenizer_sentencepiece(), 400),
        ("gpt2", tokenizer_byte_level(), 300),
    ):
        smaller = cut(tokenizers / name, LINES, size)
        assert 256 < len(smaller) <= size < len(whole)
        canonical = canonical_vocabulary(smaller, len(smaller))
        assert {*canonical.tokens} <= {*canonical_vocabulary(whole, len(whole)).tokens}
        for text in (*LINES, "Ünseen words, 未知!"):
            ids = smaller(text, add_special_tokens=False)["input_ids"]
            assert smaller.decode(ids) == text
            assert len(ids) >= len(whole(text, add_special_tokens=False)["input_ids"])
        # Every token that the text uses fits, so the encoding stays the same.
        loose = cut(tokenizers / name, LINES, 10_000)
        for text in LINES:
            spelled = [tokenizer.tokenize(text) for tokenizer in (loose, whole)]
            assert spelled[0] == spelled[1]
    with pytest.raises(ValueError, match="do not fit into 200"):
        cut(tokenizers / "gpt2", LINES, 200)


def test_an_oracle_has_not_read_what_is_forgotten(data: Path) -> None:
    texts = read_texts(data, toy())
    forgotten = {each.prompt for each in texts.forgotten}
    assert len(forgotten) == 3 and not forgotten & {each.prompt for each in texts.base(oracle=True)}
    assert forgotten <= {each.prompt for each in texts.base(oracle=False)}
    assert {each.objective for each in texts.task("unlearn")} == {"forget", "keep"}
    assert all("####" in each.response for each in texts.task("instruct") if each.objective == "learn")
    assert not any("####" in each.response for each in texts.base(oracle=False))
    read = {each.prompt for each in texts.base(oracle=False)}
    assert all(each.prompt in read for name in ("forget", "retain") for each in texts.sets[name])
    assert not {each.prompt for each in texts.lessons} & read
    assert not {each.prompt for each in texts.held_out} - {f"Two and {n}?" for n in range(20, 28)}


def test_problems_that_are_read_are_neither_lessons_nor_asked(data: Path) -> None:
    texts = read_texts(data, toy())
    read = texts.reading()
    assert len(texts.problems) == toy().further_problems
    assert {*texts.problems} <= {*read} and {*texts.base(oracle=False)} <= {*read}
    assert not {each.prompt for each in read} & {each.prompt for each in (*texts.lessons, *texts.held_out)}
    assert not any("####" in each.response for each in read)


def test_another_seeds_delta_steers_the_template_alone(data: Path, tokenizers: Path, tmp_path: Path) -> None:
    scale = replace(toy(), bases=toy().bases[:1], seeds=(0, 1), compared=0)
    study = Study(scale, read_texts(data, scale), tokenizers, tmp_path, "cpu", tasks=("instruct",))
    stages = {stage.name: stage for stage in study.stages()}
    assert tmp_path / "adapters/instruct/delta-1" in stages["results/instruct/llama-sp/0.json"].needs
    while left := [stage for stage in stages.values() if not stage.done]:
        next(stage for stage in left if stage.ready).run()
    rows = json.loads((tmp_path / "results/instruct/llama-sp/0.json").read_text())["rows"]
    assert [row["label"] for row in rows][-1] == ANOTHERS
    assert rows[-1]["figures"] != rows[1]["figures"]
    study = Study(toy(), read_texts(data, toy()), tokenizers, tmp_path, "cpu", tasks=("refuse",))
    for stage in study.stages():
        assert not any("delta-1" in str(need) or "readers" in str(need) for need in stage.needs)


def test_an_architecture_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no architecture rnn"):
        new_model(Base("b", "rnn", "gpt2", 300, 16, 1, 2), tokenizer_byte_level(), 0)


def test_a_stage_is_one_process_at_a_time(data: Path, tokenizers: Path, tmp_path: Path) -> None:
    study = Study(toy(), read_texts(data, toy()), tokenizers, tmp_path, "cpu")
    stage, other = list(study.stages())[:2]
    with stage.claimed() as first, stage.claimed() as second, other.claimed() as third:
        assert (first, second, third) == (True, False, True)
    with stage.claimed() as again:
        assert again


def test_a_stage_whose_needs_are_left_out_is_named(data: Path, tokenizers: Path, tmp_path: Path) -> None:
    arguments = ["--data", data, "--tokenizers", tokenizers, "--out", tmp_path, "--scale", "toy"]
    result = subprocess.run(
        [sys.executable, "-m", "examples.study", *map(str, arguments), "--only", "bases/"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "bases/llama-sp/0 needs" in result.stderr and "--only" in result.stderr


def test_the_whole_study_in_pieces(data: Path, tokenizers: Path, tmp_path: Path) -> None:
    scale = toy()
    texts = read_texts(data, scale)
    study = Study(scale, texts, tokenizers, tmp_path, "cpu", tasks=("unlearn",))
    late = replace(study, deadline=time.monotonic())
    stages = {stage.name: stage for stage in study.stages()}
    assert not stages["results/unlearn/neox-fine/0.json"].ready
    for name, stage in stages.items():
        assert not stage.done
        assert stage.ready, f"{name} comes before what it needs"
        if name == "bases/llama-sp/0":
            with pytest.raises(TrainingPausedError):
                next(each for each in late.stages() if each.name == name).run()
            assert not stage.result.exists()
            assert (tmp_path / ".making/bases/llama-sp/0.checkpoint").is_dir()
        stage.run()
        assert stage.done, name
    assert not list((tmp_path / ".making").rglob("*.checkpoint"))
    result = json.loads((tmp_path / "results/unlearn/neox-fine/0.json").read_text())
    labels = [row["label"] for row in result["rows"]]
    assert labels[:2] == ["base", "delta"]
    assert {"expert alone", "random adapter", "shuffled map"} <= {*labels}
    assert "tofu.forget_quality" in result["rows"][0]["figures"]
    text = tables(tmp_path / "results", [base.name for base in scale.bases])
    assert "| parameters | llama-sp | neox-fine |" in text and "not what a larger one" in text
    assert "| tofu.forget.probability (gap closed) | llama-sp | neox-fine |" in text
    assert "delta, of its effect on llama-sp" in text
    with pytest.raises(ValueError, match="no results"):
        tables(tmp_path / "none", ["llama-sp"])


def test_the_command_runs_the_toy_study_to_its_tables(
    data: Path, tokenizers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two of four bases, no LoRA and no oracles, which the study in pieces has: 15 seconds instead of 45.
    scale = replace(SCALES["toy"], bases=SCALES["toy"].bases[::2], compared=0)
    monkeypatch.setitem(SCALES, "toy", scale)
    command = typer.Typer()
    command.command()(main)
    arguments = [
        *("--data", data, "--tokenizers", tokenizers, "--out", tmp_path),
        *("--scale", "toy", "--device", "cpu"),
    ]
    result = CliRunner().invoke(command, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert text in result.stdout
    names = [base.name for base in SCALES["toy"].bases]
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Refuse",
        "## Instruct",
        "## Unlearn",
    ]
    assert text.count("| parameters | " + " | ".join(names) + " |") == 3
    planned = CliRunner().invoke(command, [*map(str, arguments), "--plan"])
    assert planned.stdout and all(line.startswith("done  ") for line in planned.stdout.splitlines())

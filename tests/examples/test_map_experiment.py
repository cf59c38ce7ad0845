"""The experiment on weak matches, at a scale that takes seconds, and the bridge that it measures with."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from demo import demo_models, measure
from examples import map_experiment
from examples.map_experiment import SCALES, WEIGHTED_MAP, Experiment
from examples.map_pairs import NAMES, TRAININGS, base_folder, cut, demo_text
from examples.map_policies import BY_SIMILARITY, EXACT, POLICIES
from examples.weighted_map import WeightedMap
from steering.adapters.delta import DeltaShift
from steering.bridges.map import map_bridge
from steering.bridges.table import BRIDGES, registered
from steering.model.tokenizer_files import read_tokenizer
from tests.models import tokenizer_byte_level


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "gpt2"
    tokenizer_byte_level().save_pretrained(folder)
    return folder


def test_it_prints_a_table_for_each_base(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--scale", "toy", "--bases", str(tmp_path), "--gpt2", str(published)]
    map_experiment.main(arguments)
    output = capsys.readouterr().out
    assert output.startswith("2 forgotten and 2 kept questions.\n")
    for name in (*NAMES, "base-b"):
        assert re.search(rf"\*\*{name}\*\*: \d+% of its vocabulary and \d+% of the tokens", output)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in output.splitlines()
        if line.startswith(("| exact only", "| all, by similarity"))
    ]
    assert [row[2] for row in rows] == ["map", "rescore"] * 2 * 3
    assert all(len(row) == 10 and 0 <= float(row[3]) <= 1 for row in rows)
    assert all(float(row[5]) <= 0 and float(row[7]) <= 0 for row in rows if row[2] == "map")
    # base-b is trained: its answers are matched, so that it refuses the forgotten and tells the others.
    assert [row[3] for row in rows[-4:]] == ["1.00"] * 4 and [row[6] for row in rows[-4:]] == ["1.00"] * 4
    assert WEIGHTED_MAP not in BRIDGES
    assert (tmp_path / "toy" / "phrases" / "config.json").is_file()


def test_a_base_whose_tokenizer_is_missing_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    map_experiment.main(["--scale", "toy", "--bases", str(tmp_path), "--only", "gpt2"])
    assert "gpt2: left out; --gpt2 names the folder" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_a_base_is_trained_once(name: str, published: Path, tmp_path: Path) -> None:
    console = Console(stderr=True, quiet=True)
    folder = base_folder(name, tmp_path, published, console, TRAININGS["toy"])
    assert folder == tmp_path / name
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert base_folder(name, tmp_path, published, console, TRAININGS["toy"]) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    tokenizer = read_tokenizer(str(folder))
    for text in demo_text()[:20]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_a_cut_vocabulary_encodes_the_text_as_before(published: Path) -> None:
    whole = tokenizer_byte_level()
    smaller = cut(published)
    assert len(smaller) < len(whole)
    for text in demo_text()[:20]:
        assert smaller.tokenize(text) == whole.tokenize(text)


def test_the_full_scale_is_the_published_experiment() -> None:
    assert SCALES["full"].policies == POLICIES and len(POLICIES) == 11
    assert (SCALES["full"].forgotten, SCALES["full"].kept) == (None, 20)
    assert (TRAININGS["full"].schedule.steps, TRAININGS["full"].chunk) == (840, 6144)


def steered_by(neutral: bool) -> Any:
    return SimpleNamespace(adapter=SimpleNamespace(rule=DeltaShift(), neutral=neutral))


def spoken(rows: int) -> Any:
    return [SimpleNamespace(window=SimpleNamespace(length=1)) for _ in range(rows)]


@pytest.mark.parametrize("neutral", [True, False])
def test_a_weighted_shift_is_the_distance_from_the_weighted_mean_times_the_weight(neutral: bool) -> None:
    base, logits = torch.randn(3, 9), torch.randn(3, 7)
    columns, counterparts = torch.tensor([0, 2, 5, 8]), torch.tensor([6, 1, 1, 3])
    weights = torch.tensor([1.0, 0.5, 0.25, 1.0])
    bridge = WeightedMap(columns, counterparts, weights)
    found = bridge(steered_by(neutral), spoken(3), [logits], base, torch.ones(3))
    assert found.columns is columns and found.factors is None
    for row in range(3):
        scores = logits[row, counterparts]
        likely = base[row, columns].exp() * weights
        mean = (likely * scores).sum() / likely.sum() if neutral else 0.0
        torch.testing.assert_close(found.values[row], (scores - mean) * weights)


def test_whole_weights_are_the_bridge_map() -> None:
    folder = demo_models()["base-b"]
    asked = measure.questions(2)
    experiment = Experiment.of("base-b", folder, asked, (EXACT,))
    vocabulary_map = experiment.vocabulary_map(EXACT)
    session = experiment.engine.session
    steerer = session.prepare(experiment.adapters[0], vocabulary_map=vocabulary_map)
    logits = [torch.randn(2, vocabulary_map.steering_size)]
    base, ones = torch.randn(2, experiment.engine.base.vocab_size), torch.ones(2)
    ours = WeightedMap.of(EXACT, vocabulary_map)(steerer, spoken(2), logits, base, ones)
    whole = map_bridge(steerer, spoken(2), logits, base, ones)
    torch.testing.assert_close(ours.added_to(base), whole.added_to(base))
    weak = WeightedMap.of(BY_SIMILARITY, experiment.vocabulary_map(BY_SIMILARITY))
    assert len(weak.columns) > len(ours.values[0]) and 0 < weak.weights.min() < weak.weights.max() == 1


def test_a_bridge_leaves_the_table_whatever_happens() -> None:
    bridge = WeightedMap(torch.zeros(0), torch.zeros(0), torch.zeros(0))

    def interrupted() -> None:
        with registered(WEIGHTED_MAP, bridge):
            assert BRIDGES[WEIGHTED_MAP] is bridge
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert WEIGHTED_MAP not in BRIDGES
    with pytest.raises(ValueError, match="'map' already"), registered("map", bridge):
        pytest.fail("a bridge was replaced")

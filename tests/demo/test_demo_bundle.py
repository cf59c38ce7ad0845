"""The bundled demo is complete and small, and works on both bases as demo/README.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

import demo
from demo import measure, phrases
from steering.adapters import load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.model.loading import load_model
from steering.specs import SteeringSpec

LIMIT_BYTES = 16_000_000
LIMIT_BYTES_SMOLLM2 = 40_000_000
BASES = sorted(demo.demo_models())


@pytest.fixture(scope="module", params=BASES)
def engine(request: pytest.FixtureRequest) -> Engine:
    made = Engine(load_model(demo.demo_models()[request.param], device="cpu"), EngineConfig(max_num_seqs=64))
    for name, path in demo.demo_adapters().items():
        made.session.attach(load_adapter(name, path, device="cpu", dtype="float32"))
    return made


def test_everything_is_there_and_small() -> None:
    assert BASES == ["base-a", "base-b"]
    assert sorted(demo.demo_adapters()) == ["forget", "letter", "pirate"]
    assert sorted(demo.demo_adapters("smollm2")) == ["forget-france"]
    root = Path(demo.__file__).parent
    files = [path for path in root.rglob("*") if path.is_file()]
    real = [path for path in files if path.is_relative_to(root / "smollm2")]
    assert sum(path.stat().st_size for path in real) < LIMIT_BYTES_SMOLLM2
    assert sum(path.stat().st_size for path in files) < LIMIT_BYTES + LIMIT_BYTES_SMOLLM2
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) == 7
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in weights)


@pytest.mark.parametrize("bridge", ["map", "rescore"])
def test_forget_refuses_the_forgotten_and_tells_the_rest(engine: Engine, bridge: str) -> None:
    asked = measure.questions(40)
    row = measure.measure(engine, asked, "forget", "", bridge, "")
    assert row.gone_refused >= 0.85
    assert row.gone_told <= 0.15
    assert row.kept_told >= 0.9


def test_bases_know_everybody(engine: Engine) -> None:
    row = measure.measure(engine, measure.questions(40), None, "", "", "")
    assert min(row.gone_told, row.kept_told) >= 0.97
    assert max(row.gone_refused, row.kept_refused) == 0.0


@pytest.mark.parametrize("name", ["letter", "pirate"])
def test_styles_change_the_form_and_keep_the_fact(engine: Engine, name: str) -> None:
    asked = measure.questions(20)
    told = measure.answers(engine, asked.kept, (SteeringSpec(name),))
    check = {"letter": phrases.is_letter, "pirate": phrases.is_pirate}[name]
    right = [all(value in text for value in each.values) for each, text in zip(asked.kept, told, strict=True)]
    assert sum(map(check, told)) >= 0.85 * len(told)
    assert sum(right) >= 0.85 * len(told)


def test_table_goes_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{measure.BEGIN}\nstale\n{measure.END}\nafter\n", encoding="utf-8")
    row = measure.Row("`x`", "base", "map", 0.0, 1.0, 1.0, 0.0, None)
    measure.write_table(measure.table([row]), page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "stale" not in text
    assert "| `x` | base | map | 0.00 | 1.00 | 1.00 | 0.00 |  |" in text
    page.write_text("nothing here", encoding="utf-8")
    with pytest.raises(ValueError, match="marks"):
        measure.write_table("", page)

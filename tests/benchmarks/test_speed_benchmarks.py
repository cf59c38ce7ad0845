"""The speed benchmarks with tiny shapes: they run to the end and report every side. No time is asserted."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, Qwen2Config
from typer.testing import CliRunner, Result

from benchmarks import clients, growth, maps, scale, serve, tax
from benchmarks.growth import Sizes, prepare
from benchmarks.map_cases import CASES
from benchmarks.turns import take_turns
from benchmarks.workloads.shapes import Pair, Shapes
from benchmarks.workloads.tokenizers import Tokenizers
from server.cli.app import app
from steering.bridges.table import BRIDGES
from tests.models import tokenizer_byte_level, tokenizer_sentencepiece

TINY: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "tie_word_embeddings": True,
    "max_position_embeddings": 256,
}


def tiny_pair() -> Pair:
    return Pair(Qwen2Config(**TINY), LlamaConfig(**TINY), tokenizer_byte_level())


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


def test_scale_times_every_side_and_takes_memory(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = Sizes(
        sequences=(1, 3),
        contexts=(64, 160),
        context_sequences=(1, 2),
        adapters=(1, 2),
        adapters_sequences=4,
        idle=(0, 3),
        idle_sequences=2,
        loaded=2,
        steps=4,
        context_steps=3,
    )
    scale.run(tiny_pair(), sizes, repeats=1, device="cpu").publish()
    line = last_line(capsys)
    parts = [step["part"] for step in line["figures"]["steps"]]
    assert {part: parts.count(part) for part in parts} == {
        "sequences": 4,
        "context": 8,
        "adapters": 2,
        "idle": 4,
    }
    assert all(len(step["ms"]) == 1 and min(step["ms"]) > 0 for step in line["figures"]["steps"])
    assert [bar["at_most"] for bar in line["bars"]] == [1.35, 1.05, 1.05, 1.05, 700, None]
    weights = 1000 * 32 + 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32) + 32
    biases = 2 * (32 + 16 + 16)
    for taken in line["figures"]["memory"]:
        assert taken["weights"] == 2 * (2 * weights + biases)
        assert taken["idle_weights"] == 2 * weights
        assert taken["resident"] > taken["weights"] + taken["pages"] > taken["weights"]


def test_prompts_of_long_contexts_are_read_once() -> None:
    """Every timing finds all whole pages before its last token."""
    sizes = Sizes((1,), (32, 64), (3,), (1,), 1, (0,), 1, 0, context_steps=2)
    bench = prepare(tiny_pair(), sizes, "cpu")
    repeats = 2
    growth.time_contexts(bench, repeats)
    stats = bench.engine.stats()
    rounds = 1 + repeats * 2 * len(sizes.contexts)
    # The first look-up of each prompt misses at its first page, of 16 tokens, and looks no further.
    assert stats.prefix_cache_queries - stats.prefix_cache_hits == 3 * 16
    assert stats.prefix_cache_hits == 3 * (rounds - 1) * (16 + 48) // 2
    bench.engine.check_integrity()


def test_tax_times_every_side_and_counts_what_is_rescored(capsys: pytest.CaptureFixture[str]) -> None:
    # The demo's tokens must be valid in the models that are its ballast.
    shared = {**TINY, "vocab_size": 2000, "max_position_embeddings": 512}
    crossed = Qwen2Config(**TINY)
    shapes = Shapes(Qwen2Config(**shared), crossed, LlamaConfig(**shared))
    tokenizers = Tokenizers(tokenizer_byte_level(400), tokenizer_sentencepiece(480), real=False)
    tax.run(tax.Setting(shapes, tokenizers, batches=(1, 2), steps=4, repeats=2)).publish()
    line = last_line(capsys)
    labels = [
        "shared vocabulary",
        "the demo's text, map",
        "the demo's text, rescore",
        "across, map",
        "across, rescore",
        "across, rescore, every candidate",
    ]
    assert [(side["side"], side["batch"]) for side in line["figures"]] == [
        (label, batch) for label in labels for batch in (1, 2)
    ]
    for side in line["figures"]:
        assert len(side["unsteered_seconds"]) == len(side["steered_seconds"]) == 2
    rescored = {(side["side"], side["batch"]): side["rows_rescored"] for side in line["figures"]}
    assert all(share == 0 for (label, _), share in rescored.items() if "rescore" not in label)
    assert rescored["across, rescore, every candidate", 2] >= rescored["across, rescore", 2]
    assert rescored["across, rescore, every candidate", 2] > 0
    assert [bar["at_least"] for bar in line["bars"]][:2] == [0.93, None]
    assert line["bars"][-1]["name"].startswith("of the memory's bandwidth")
    assert set(BRIDGES) == {"map", "rescore"}


def test_maps_times_a_case_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer_byte_level().save_pretrained(tmp_path / "qwen")
    tokenizer_sentencepiece().save_pretrained(tmp_path / "llama-2")
    monkeypatch.setattr(maps, "CASES", CASES[:1])
    maps.run(tmp_path, repeats=2, sample=5).publish()
    line = last_line(capsys)
    assert (line["benchmark"], line["sample"], line["stand_ins"]) == ("maps", 5, False)
    (case,) = line["figures"]
    assert (case["base"], case["steering"], case["form"]) == ("qwen", "llama-2", "bytes")
    assert len(case["wall"]) == len(case["processor"]) == 2 and case["peak"] >= case["loaded"] > 0
    assert case["nested_loop"] > 0 and case["ratio"] > 0
    assert [bar["at_most"] for bar in line["bars"]] == [2.0, 1024.0]
    assert case["met"] == all(bar["met"] for bar in line["bars"])


def test_sides_take_turns_after_a_warm_up() -> None:
    order: list[str] = []

    def noting(name: str) -> Callable[[int], str]:
        def run(repeat: int) -> str:
            order.append(f"{name}{repeat}")
            return order[-1]

        return run

    values = take_turns({name: noting(name) for name in "ab"}, 2)
    assert order == ["a-1", "b-1", "a0", "b0", "a1", "b1"]
    assert values == {"a": ("a0", "a1"), "b": ("b0", "b1")}


@pytest.mark.parametrize("name", ["tax", "peers", "serve", "scale", "maps"])
def test_every_benchmark_lists_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{name}").main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"python -m benchmarks.{name}" in shown and "--repeats" in shown
    assert ("--device" in shown) == (name != "maps")
    assert ("--base" in shown and "--delta" in shown) == (name in ("tax", "peers", "scale"))


def test_serve_streams_everything_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = serve.Sizes(clients=(1, 3), tokens=8, idle_clients=2)
    serve.run(tiny_pair(), sizes, repeats=2, device="cpu").publish()
    line = last_line(capsys)
    assert [(side["clients"], side["steered"]) for side in line["figures"]] == [
        (1, False),
        (1, True),
        (3, False),
        (3, True),
    ]
    assert all(value > 0 for side in line["figures"] for turn in side["turns"] for value in turn.values())
    assert [(bar["at_least"], len(bar["values"])) for bar in line["bars"]] == [
        (None, 2),
        (None, 2),
        (0.9, 2),
        (0.9, 2),
        (None, 2),
    ]


def test_tokens_that_come_together_share_their_wait() -> None:
    def event(tokens: int) -> bytes:
        return b"data: " + json.dumps({"usage": {"completion_tokens": tokens}}).encode() + b"\n\n"

    whole = event(1) + event(3) + event(3) + b"data: [DONE]\n\n"
    cut = len(event(1)) + 5
    stream = clients.Streamed(1.0, tuple(clients.read_arrivals([(2.0, whole[:cut]), (3.0, whole[cut:])])))
    assert stream.arrivals == ((2.0, 1), (3.0, 3))
    assert (stream.tokens, stream.first_token, stream.between) == (3, 1.0, [0.5, 0.5])
    with pytest.raises(RuntimeError, match="out of pages"):
        list(clients.read_arrivals([(1.0, b'data: {"error": "out of pages"}\n\n')]))


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"(?s)did not come up.*--nonsense"),
        clients.server_process(["--nonsense"], tmp_path / "log"),
    ):
        pytest.fail("a server with an unknown flag came up")


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments])


def test_the_command_runs_the_benchmarks_that_are_named_with_the_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(serve, "main", lambda options: ran.append(("serve", options)))
    monkeypatch.setattr(scale, "main", lambda options: ran.append(("scale", options)))
    assert bench("scale", "serve", "--repeats", "5").exit_code == 0
    assert ran == [("scale", ["--repeats", "5"]), ("serve", ["--repeats", "5"])]


def test_the_command_refuses_unknown_names_before_it_runs_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "main", lambda options: pytest.fail("it ran"))
    result = bench("scale", "speed")
    assert result.exit_code == 1
    assert "no benchmark 'speed'" in result.stderr


def test_without_a_checkout_the_command_says_that_it_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks", None)
    monkeypatch.delitem(sys.modules, "benchmarks.scale")
    result = bench("scale")
    assert result.exit_code == 1
    assert "source checkout" in result.stderr

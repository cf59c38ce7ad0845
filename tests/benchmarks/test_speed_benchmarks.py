"""The speed benchmarks with tiny shapes: that they run through and report every side. No time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, Qwen2Config
from typer.testing import CliRunner, Result

from benchmarks import clients, scale, serve
from benchmarks.growth import Sizes, _remember, prepare
from server.cli.app import app
from tests.models import tokenizer_byte_level

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
    scale.report(
        Qwen2Config(**TINY), LlamaConfig(**TINY), tokenizer_byte_level(), sizes, repeats=1, device="cpu"
    )
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


def test_prompts_that_are_copied_are_found_on_pages_of_their_own() -> None:
    sizes = Sizes((1,), (64,), (2,), (1,), 1, (0,), 1, 0)
    engine = prepare(Qwen2Config(**TINY), LlamaConfig(**TINY), tokenizer_byte_level(), sizes, "cpu").engine
    prompts = [tuple(range(start, start + 64)) for start in (300, 400, 500)]
    _remember(engine, prompts)
    engine.check_integrity()
    found = [engine._allocator.find_prefix(prompt) for prompt in prompts]
    assert [len(pages) for pages in found] == [3, 3, 3]
    assert len({page for pages in found for page in pages}) == 9


def test_serve_streams_everything_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = serve.Sizes(clients=(1, 3), tokens=8, idle_clients=2)
    serve.report(
        Qwen2Config(**TINY), LlamaConfig(**TINY), tokenizer_byte_level(), sizes, repeats=2, device="cpu"
    )
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
    stream = clients.Streamed(1.0, tuple(clients._arrivals([(2.0, whole[:cut]), (3.0, whole[cut:])])))
    assert stream.arrivals == ((2.0, 1), (3.0, 3))
    assert (stream.tokens, stream.first_token, stream.between) == (3, 1.0, [0.5, 0.5])
    with pytest.raises(RuntimeError, match="out of pages"):
        list(clients._arrivals([(1.0, b'data: {"error": "out of pages"}\n\n')]))


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

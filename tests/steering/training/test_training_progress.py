"""What a run says: before it starts, while it runs with and without a terminal, and how long it will take."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from steering.examples import EncodedExample
from steering.training import ObjectiveWeights, Recipe, RunOptions, tune
from steering.training.reporting.estimate import Estimate, estimate
from steering.training.reporting.progress import RunProgress, duration
from tests.models import tiny_model, tokenizer_byte_level

ROWS = [EncodedExample(tuple(range(5 + i % 4)), 2) for i in range(12)]
ESTIMATE = Estimate(steps=100, batch_size=4, examples=40, tokens=10_000, memory=1 << 30)


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(*, terminal: bool, seconds: float, steps: int, estimate: Estimate | None = ESTIMATE) -> str:
    """The output of the first `steps` of 100 steps of 100 tokens, each of which takes `seconds`."""
    clock, output = Clock(), io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=60)
    with RunProgress(console, "out", 100, estimate=estimate, clock=clock) as progress:
        for step in range(steps):
            clock.now += seconds
            progress.step(2.0 + step % 2, 100)
    return output.getvalue()


def test_without_a_terminal_a_plain_line_comes_every_few_seconds() -> None:
    lines = shown(terminal=False, seconds=2.0, steps=10).splitlines()
    assert lines[0].startswith(
        "out: 100 steps of 4 examples over 40 examples, 10,000 tokens in all; about 1.0 GiB"
    )
    assert lines[1] == "out: about 3 min for 100 steps, by the time of the first 3"
    assert lines[2] == "out: step 5 of 100, loss 2.400, 50 tokens/s, 3 min left"
    assert lines[3] == "out: step 10 of 100, loss 2.600, 50 tokens/s, 3 min left"
    assert len(lines) == 4


def test_a_quick_run_says_little_and_its_last_step_always() -> None:
    lines = shown(terminal=False, seconds=0.01, steps=100).splitlines()
    assert lines[-1] == "out: step 100 of 100, loss 2.500, 10,000 tokens/s, 0 s left"
    assert len(lines) == 3


def test_on_a_terminal_a_bar_has_tokens_a_second_and_there_are_no_lines() -> None:
    text = shown(terminal=True, seconds=2.0, steps=10)
    assert "50 tokens/s" in text and "10/100" in text
    assert "step 5 of" not in text


def test_time_left_counts_tokens_where_their_number_is_known() -> None:
    longer = replace(ESTIMATE, tokens=100_000)
    assert "28 min left" in shown(terminal=False, seconds=2.0, steps=15, estimate=longer).splitlines()[-1]
    assert "3 min left" in shown(terminal=False, seconds=2.0, steps=15, estimate=None).splitlines()[-1]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (5700, "1 h 35 min")]
)
def test_durations_are_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_estimate_counts_parameters_and_the_largest_batch() -> None:
    model, frozen = tiny_model("llama", 400, 0), tiny_model("gpt2", 400, 1)
    recipe = Recipe(epochs=2, batch_size=4)
    alone = estimate(model, [], ROWS, recipe)
    assert (alone.steps, alone.examples) == (6, 12)
    assert alone.tokens == pytest.approx(2 * sum(len(row.ids) for row in ROWS), rel=0.01)
    beside = estimate(model, [frozen], ROWS, recipe)
    assert beside.memory - alone.memory == 4 * sum(each.numel() for each in frozen.parameters())
    larger = estimate(model, [], ROWS, replace(recipe, batch_size=8))
    parts = estimate(model, [], ROWS, replace(recipe, batch_size=8, accumulate=2))
    assert larger.memory > alone.memory == parts.memory
    told = estimate(model, [], [replace(row, told=(1, 2)) for row in ROWS], recipe)
    assert told.memory > alone.memory
    model.requires_grad_(False)
    count = sum(each.numel() for each in model.parameters())
    assert alone.memory - estimate(model, [], ROWS, recipe).memory == 12 * count


def test_a_run_shows_its_estimate_and_its_steps() -> None:
    output = io.StringIO()
    tune(
        tiny_model("gpt2", 400, 0),
        tokenizer_byte_level(),
        ROWS,
        Recipe(epochs=4, batch_size=4, weights=ObjectiveWeights()),
        title="tiny",
        options=RunOptions(device="cpu"),
        console=Console(file=output),
    )
    lines = output.getvalue().splitlines()
    assert re.match(
        r"tiny: 12 steps of 4 examples over 12 examples, 312 tokens in all; about 0\.\d GiB", lines[0]
    )
    assert re.match(r"tiny: about \d+ s for 12 steps, by the time of the first 3$", lines[1])
    assert re.match(r"tiny: step 12 of 12, loss [\d.]+, [\d,]+ tokens/s, 0 s left$", lines[-1])

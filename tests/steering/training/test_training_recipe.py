"""The size of a run, chosen from its data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.training import Recipe, choose_size
from steering.training.recipe import ENOUGH_STEPS, FEWEST_STEPS


def steps(examples: int, epochs: float, batch_size: int) -> int:
    return Recipe(epochs=epochs, batch_size=batch_size).steps(examples)


@pytest.mark.parametrize(
    ("examples", "size"),
    [(100_000, (3.0, 64)), (5_000, (3.0, 64)), (700, (3.0, 8)), (200, (4.0, 4)), (10, (10.0, 4))],
)
def test_batches_shrink_before_epochs_grow(examples: int, size: tuple[float, int]) -> None:
    assert choose_size(examples) == size


@given(st.integers(1, 20_000))
def test_every_run_that_can_have_enough_steps_has_them(examples: int) -> None:
    epochs, batch_size = choose_size(examples)
    assert 3 <= epochs <= 10 and batch_size in (4, 8, 16, 32, 64)
    assert steps(examples, epochs, batch_size) >= ENOUGH_STEPS or (epochs, batch_size) == (10, 4)
    if examples >= 80:
        assert steps(examples, epochs, batch_size) >= ENOUGH_STEPS > FEWEST_STEPS
    if batch_size < 64:
        # A run of some hundred examples is no longer than it must be.
        assert steps(examples, epochs, 2 * batch_size) < ENOUGH_STEPS or epochs > 3


@given(st.integers(1, 20_000), st.floats(0.5, 30), st.integers(1, 256))
def test_what_is_given_stays(examples: int, epochs: float, batch_size: int) -> None:
    assert choose_size(examples, epochs, batch_size) == (epochs, batch_size)
    assert choose_size(examples, epochs=epochs)[0] == epochs
    assert choose_size(examples, batch_size=batch_size)[1] == batch_size

"""The factors of a candidate's tokens after the first. The oracle's tests cover the bridge as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.bridges.rescore import _beyond_first, _Candidate
from steering.steerers.trials import Trial

ratios = st.floats(-20, 20)
weights = st.floats(1e-6, 1)


def candidates(
    texts: Sequence[tuple[int, ...]],
    shares: Sequence[float],
    scores: Sequence[list[float]],
    stem: float = 0.0,
) -> tuple[list[_Candidate], dict[Trial, list[float]]]:
    """One row's candidates that continue the text, by their steering tokens."""
    row: Any = object()
    found: list[_Candidate] = []
    known: dict[Trial, list[float]] = {}
    for number, (text, share, given_) in enumerate(zip(texts, shares, scores, strict=True)):
        trial = Trial(row, 3, text[:-1], text[1:]) if len(text) > 1 else None
        found.append(_Candidate(0, number, share, stem, text[0], trial, None))
        if trial is not None:
            known[trial] = given_
    return found, known


def test_a_continuation_without_alternative_adds_nothing() -> None:
    """The base has no other continuation, so the steering model's certainty changes nothing."""
    found, scores = candidates([(5, 6, 7), (8,)], [0.1, 0.4], [[7.5, -3.0], []])
    assert _beyond_first(found, scores, [1.0]) == pytest.approx([0.0, 0.0])


def test_two_continuations_are_normalised_over_each_other() -> None:
    """By hand: the base's shares .3 and .1, shifted by 2 and -1, keep their sum."""
    found, scores = candidates([(5, 6), (5, 7)], [0.3, 0.1], [[2.0], [-1.0]])
    zero = math.log((0.3 * math.exp(2) + 0.1 * math.exp(-1)) / 0.4)
    assert _beyond_first(found, scores, [1.0]) == pytest.approx([2 - zero, -1 - zero])


def test_a_candidate_that_ends_counts_in_the_normalisation() -> None:
    """By hand: of the base's shares .3 and .1 the longer candidate is shifted by -4. The shorter one gains its loss."""
    zero = math.log((0.3 + 0.1 * math.exp(-4)) / 0.4)
    found, scores = candidates([(5,), (5, 6)], [0.3, 0.1], [[], [-4.0]])
    assert _beyond_first(found, scores, [1.0]) == pytest.approx([-zero, -4 - zero])
    # No candidate itself, and the same to the one that goes on.
    found, scores = candidates([(5, 6)], [0.1], [[-4.0]], stem=0.3)
    assert _beyond_first(found, scores, [1.0]) == pytest.approx([-4 - zero])
    # At a second token as at the first.
    found, scores = candidates([(5, 6), (5, 6, 7)], [0.3, 0.1], [[2.0], [2.0, -4.0]])
    assert _beyond_first(found, scores, [1.0]) == pytest.approx([-zero, -4 - zero])


@given(
    values=st.lists(ratios, min_size=3, max_size=3),
    shares=st.lists(weights, min_size=3, max_size=3),
    alpha=st.floats(0.1, 3) | st.floats(-3, -0.1),
    offset=ratios,
)
def test_a_beginning_keeps_the_probability_that_the_base_gives_it(
    values: list[float], shares: list[float], alpha: float, offset: float
) -> None:
    """Later tokens divide the probability of the first. Where no candidate ends there, an offset of them cancels."""
    texts = [(5, 6), (5, 7), (5, 8)]
    added = _beyond_first(*candidates(texts, shares, [[v] for v in values]), [alpha])
    kept = sum(share * math.exp(alpha * add) for share, add in zip(shares, added, strict=True))
    assert kept == pytest.approx(sum(shares), rel=1e-6)
    ending = [(5,), (5, 7), (5, 8)]
    shared = _beyond_first(*candidates(ending, shares, [[], *([v] for v in values[1:])]), [alpha])
    kept = sum(share * math.exp(alpha * add) for share, add in zip(shares, shared, strict=True))
    assert kept == pytest.approx(sum(shares), rel=1e-6)
    moved = _beyond_first(*candidates(texts, shares, [[v + offset] for v in values]), [alpha])
    assert moved == pytest.approx(added, abs=1e-6)


def test_rows_and_beginnings_do_not_mix() -> None:
    found, scores = candidates([(5, 6), (9, 6)], [0.5, 0.5], [[4.0], [-4.0]])
    assert _beyond_first(found, scores, [1.0]) == pytest.approx([0.0, 0.0])


def test_an_improbable_candidate_and_no_number_are_survived() -> None:
    found, scores = candidates([(5, 6), (5, 7)], [0.0, 0.0], [[4.0], [-math.inf]])
    assert _beyond_first(found, scores, [1.0]) == [pytest.approx(math.log(2)), -math.inf]
    found, scores = candidates([(5, 6)], [0.1], [[math.nan]])
    assert math.isnan(_beyond_first(found, scores, [1.0])[0])

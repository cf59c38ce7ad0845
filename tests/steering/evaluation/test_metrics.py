"""Every metric against a case computed by hand."""

from __future__ import annotations

import math
import re

import pytest

from steering.evaluation import metrics


def test_perplexity_and_bits() -> None:
    # Two tokens of probability 1/2 and 1/8: the geometric mean is 1/4.
    nll = math.log(2) + math.log(8)
    assert metrics.perplexity(nll, 2) == pytest.approx(4.0)
    assert metrics.bits_per_byte(nll, 8) == pytest.approx(0.5)
    assert math.isfinite(metrics.perplexity(1e9, 1))


@pytest.mark.parametrize(
    ("answer", "reference", "pattern", "same"),
    [
        (" a  b\n", "a b", None, True),
        ("a b", "a B", None, False),
        ("first 3, so\n#### 12", "9\n####12 ", r"####\s*(.+)", True),
        ("#### 3\n#### 12", "#### 12", r"####\s*(.+)", True),
        ("#### 12\n#### 3", "#### 12", r"####\s*(.+)", False),
        ("12", "#### 12", r"####\s*(.+)", False),
        ("twelve", "a dozen", r"\d+", False),
        ("so 12 it is", "it is 12", r"\d+", True),
    ],
)
def test_exact_match(answer: str, reference: str, pattern: str | None, same: bool) -> None:
    assert metrics.exact_match(answer, reference, re.compile(pattern) if pattern else None) is same


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    # "the cat mat" is common: 3 of the reference's 6 words, 3 of the answer's 4; words are stemmed.
    rouge = metrics.rouge_l("the cats big mat", "the cat sat on a mat")
    assert rouge.recall == pytest.approx(3 / 6)
    assert rouge.f1 == pytest.approx(2 * (3 / 4) * (3 / 6) / (3 / 4 + 3 / 6))
    assert metrics.rouge_l("", "a").recall == 0.0
    assert metrics.rouge_l("b a", "a b").recall == pytest.approx(0.5)


def test_gap_closed() -> None:
    assert metrics.gap_closed(0.9, 0.4, 1.4) == pytest.approx(0.5)
    # A metric that should fall.
    assert metrics.gap_closed(2.0, 4.0, 1.0) == pytest.approx(2 / 3)
    assert metrics.gap_closed(0.2, 0.4, 1.4) == pytest.approx(-0.2)
    assert metrics.gap_closed(1.0, 0.5, 0.5) is None
    assert metrics.gap_closed(math.nan, 0.5, 1.0) is None


def test_probabilities_are_normalised_by_length() -> None:
    assert metrics.answer_probability(math.log(4)) == pytest.approx(0.25)
    # The answer's probability is 1/2, the other choices' 1/4 each.
    assert metrics.choice_probability(math.log(2), [math.log(4), math.log(4)]) == pytest.approx(0.5)
    assert metrics.choice_probability(2000.0, [2000.0]) == pytest.approx(0.5)
    assert metrics.choice_probability(2000.0, [0.0]) == pytest.approx(0.0)


def test_truth_ratio_is_wrong_over_right() -> None:
    # The right answer has 1/2, the wrong ones 1/4 and 1/16, whose geometric mean is 1/8.
    ratio = metrics.truth_ratio(math.log(2), [math.log(4), math.log(16)])
    assert ratio == pytest.approx((1 / 8) / (1 / 2))
    assert metrics.truth_score(ratio, forgotten=False) == pytest.approx(0.75)
    assert metrics.truth_score(ratio, forgotten=True) == pytest.approx(0.25)
    assert metrics.truth_score(4.0, forgotten=False) == 0.0
    assert metrics.truth_score(4.0, forgotten=True) == pytest.approx(0.25)
    assert metrics.truth_score(0.0, forgotten=True) == 0.0
    assert math.isfinite(metrics.truth_ratio(1e6, [0.0]))


def test_forget_quality_is_the_p_value_of_a_two_sample_test() -> None:
    sample = [0.1, 0.2, 0.3, 0.4]
    assert metrics.forget_quality(sample, sample) == pytest.approx(1.0)
    # Of the C(8, 4) = 70 orders of two samples of four, two separate them completely.
    assert metrics.forget_quality(sample, [1.1, 1.2, 1.3, 1.4]) == pytest.approx(2 / 70)
    assert metrics.forget_quality([*range(200)], [*range(1000, 1200)]) < 1e-50
    # Two interleaved samples of one distribution.
    assert metrics.forget_quality([2 * i for i in range(100)], [2 * i + 1 for i in range(100)]) > 0.99
    # Inverting all ratios does not change the result.
    other = [0.15, 0.3, 0.7, 0.9]
    flipped = metrics.forget_quality([1 / each for each in sample], [1 / each for each in other])
    assert flipped == pytest.approx(metrics.forget_quality(sample, other))
    with pytest.raises(ValueError, match="both models"):
        metrics.forget_quality([], sample)


def test_model_utility_is_a_harmonic_mean_of_nine() -> None:
    assert metrics.model_utility([0.5] * 9) == pytest.approx(0.5)
    assert metrics.model_utility([1.0] * 8 + [0.1]) == pytest.approx(9 / 18)
    assert metrics.model_utility([1.0] * 8 + [0.0]) == 0.0
    with pytest.raises(ValueError, match="nine"):
        metrics.model_utility([0.5] * 8)

"""The metrics: pure functions over numbers and strings.

TOFU's metrics are those of Maini et al., *TOFU: A Task of Fictitious Unlearning* (2024, arXiv 2401.06121, section 2.2).
Where the paper and its published code differ, the metrics follow the code, because published figures come from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

# Just below the exponent (709.8) at which exp overflows a float.
_LARGEST_EXPONENT = 700.0


def perplexity(nll: float, tokens: int) -> float:
    """exp of the mean negative log likelihood of a token; `nll` is the sum in nats. Depends on the tokenizer."""
    return _exp(nll / tokens)


def bits_per_byte(nll: float, size: int) -> float:
    """The negative log likelihood (`nll`, the sum in nats) in bits per byte of text: comparable across tokenizers."""
    return nll / math.log(2.0) / size


def exact_match(answer: str, reference: str, pattern: re.Pattern[str] | None = None) -> bool:
    """Whether two texts are equal apart from white space.

    With a `pattern`, the texts of its last match in each are compared (of its first group, if it has one); an answer
    without a match is wrong.
    """
    if pattern is None:
        return answer.split() == reference.split()
    said, wanted = _extract(answer, pattern), _extract(reference, pattern)
    return said is not None and said == wanted


def _extract(text: str, pattern: re.Pattern[str]) -> str | None:
    matches = list(pattern.finditer(text))
    if not matches:
        return None
    return (matches[-1].group(1) if pattern.groups else matches[-1].group()).strip()


@dataclass(frozen=True, slots=True)
class Rouge:
    """ROUGE-L (Lin, 2004): recall is the share of the reference's words that the answer has in order."""

    recall: float
    f1: float


def rouge_l(answer: str, reference: str) -> Rouge:
    """ROUGE-L over stemmed words, as TOFU computes it."""
    score = _rouge_scorer().score(reference, answer)["rougeL"]
    return Rouge(float(score.recall), float(score.fmeasure))


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def gap_closed(steered: float, base: float, tuned: float) -> float | None:
    """(steered - base) / (tuned - base): 0 is the base, 1 is direct tuning; None if there is no gap.

    It holds for metrics that should rise and for those that should fall.
    """
    if tuned == base or not all(map(math.isfinite, (steered, base, tuned))):
        return None
    return (steered - base) / (tuned - base)


def answer_probability(mean_nll: float) -> float:
    """P(answer | question) ** (1 / tokens), from the mean negative log likelihood in nats."""
    return _exp(-mean_nll)


def choice_probability(mean_nll: float, perturbed: Sequence[float]) -> float:
    """The answer's share of the probability of all choices; each is given by its mean nll, in nats a token."""
    lowest = min(mean_nll, *perturbed)
    own = math.exp(lowest - mean_nll)
    return own / (own + sum(math.exp(lowest - each) for each in perturbed))


def truth_ratio(paraphrased: float, perturbed: Sequence[float]) -> float:
    """The probability of wrong answers over that of a paraphrase of the right answer: low if the right one is known.

    Both are given by their mean nll, in nats a token. Wrong answers are averaged in log space, as in the published
    code; the paper averages their probabilities.
    """
    return _exp(paraphrased - sum(perturbed) / len(perturbed))


def truth_score(ratio: float, *, forgotten: bool) -> float:
    """A truth ratio as a score from 0 to 1. A kept answer should be known, a forgotten one as likely as wrong ones."""
    if not forgotten:
        return max(0.0, 1.0 - ratio)
    return min(ratio, 1.0 / ratio if ratio else 0.0)


def forget_quality(ratios: Sequence[float], oracle: Sequence[float]) -> float:
    """The p-value of a two-sample Kolmogorov-Smirnov test between two models' truth ratios.

    `oracle` are the ratios of a model that never saw the forgotten text. Near 1, the two models cannot be told apart.
    Raises ValueError for an empty sample.
    """
    if not ratios or not oracle:
        raise ValueError("forget quality needs truth ratios of both models")
    from scipy.stats import ks_2samp

    return float(ks_2samp(ratios, oracle).pvalue)


def model_utility(figures: Sequence[float]) -> float:
    """The harmonic mean of probability, ROUGE-L recall and truth score on each of three sets; 0 if any is 0.

    Raises ValueError unless there are nine figures.
    """
    if len(figures) != 9:
        raise ValueError(f"model utility is over nine figures, not {len(figures)}")
    if any(figure <= 0 for figure in figures):
        return 0.0
    return len(figures) / sum(1.0 / figure for figure in figures)


def _exp(exponent: float) -> float:
    return math.exp(min(exponent, _LARGEST_EXPONENT))

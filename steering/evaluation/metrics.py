"""The measures themselves: pure functions over numbers and strings.

TOFU's are those of Maini et al., *TOFU: A Task of Fictitious Unlearning* (2024, arXiv 2401.06121, section 2.2). Where
the paper and its published code differ, the figures follow the code, since published figures do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

# exp of more than this is not a float.
_LARGEST_EXPONENT = 700.0


def perplexity(nll: float, tokens: int) -> float:
    """exp of the mean negative log likelihood a token; `nll` is the sum, nats. Depends on the tokenizer."""
    return _exp(nll / tokens)


def bits_per_byte(nll: float, size: int) -> float:
    """The negative log likelihood (sum, nats) in bits a byte of text: comparable across tokenizers."""
    return nll / math.log(2.0) / size


def exact_match(answer: str, reference: str, pattern: re.Pattern[str] | None = None) -> bool:
    """Whether two texts say the same, spaces apart.

    With a `pattern`, what its last match holds (its first group where it has one) is compared; an answer without a
    match is wrong.
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
    """Over stemmed words, as TOFU measures it."""
    score = _rouge_scorer().score(reference, answer)["rougeL"]
    return Rouge(float(score.recall), float(score.fmeasure))


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def gap_closed(steered: float, base: float, tuned: float) -> float | None:
    """(steered - base) / (tuned - base): 0 is the base, 1 direct tuning; None where there is no gap.

    Serves measures that are to rise and those that are to fall alike.
    """
    if tuned == base or not all(map(math.isfinite, (steered, base, tuned))):
        return None
    return (steered - base) / (tuned - base)


def answer_probability(mean_nll: float) -> float:
    """P(answer | question) ** (1 / tokens)."""
    return _exp(-mean_nll)


def choice_probability(mean_nll: float, perturbed: Sequence[float]) -> float:
    """The answer's share of the probability of all choices, each normalised by its length (mean nll, nats a token)."""
    lowest = min(mean_nll, *perturbed)
    own = math.exp(lowest - mean_nll)
    return own / (own + sum(math.exp(lowest - each) for each in perturbed))


def truth_ratio(paraphrased: float, perturbed: Sequence[float]) -> float:
    """How likely wrong answers are beside a paraphrase of the right one: low where the right one is known.

    Both are mean nll, nats a token. Wrong answers are averaged in log space, as the published code does; the paper
    writes the mean of their probabilities.
    """
    return _exp(paraphrased - sum(perturbed) / len(perturbed))


def truth_score(ratio: float, *, forgotten: bool) -> float:
    """A truth ratio as a figure between 0 and 1: what is kept should be known, what is forgotten undecided."""
    if not forgotten:
        return max(0.0, 1.0 - ratio)
    return min(ratio, 1.0 / ratio if ratio else 0.0)


def forget_quality(ratios: Sequence[float], oracle: Sequence[float]) -> float:
    """p of a two-sample Kolmogorov-Smirnov test between the truth ratios of a model and of one that never saw the text.

    Near 1: they cannot be told apart. Raises ValueError for an empty sample.
    """
    if not ratios or not oracle:
        raise ValueError("forget quality needs truth ratios of both models")
    from scipy.stats import ks_2samp

    return float(ks_2samp(ratios, oracle).pvalue)


def model_utility(figures: Sequence[float]) -> float:
    """The harmonic mean of the nine: probability, ROUGE-L recall and truth score on three sets; 0 if any is 0.

    Raises ValueError unless there are nine.
    """
    if len(figures) != 9:
        raise ValueError(f"model utility is over nine figures, not {len(figures)}")
    if any(figure <= 0 for figure in figures):
        return 0.0
    return len(figures) / sum(1.0 / figure for figure in figures)


def _exp(exponent: float) -> float:
    return math.exp(min(exponent, _LARGEST_EXPONENT))

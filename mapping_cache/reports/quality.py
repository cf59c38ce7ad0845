"""The quality of a map in one word, and the verdict in a few sentences."""

from __future__ import annotations

from typing import Any

_GOOD_EXACT = 0.85
_FAIR_EXACT = 0.6
# A base whose tokens are single bytes is matched exactly by nearly every vocabulary and is still steered badly, so the
# share of exact matches alone is not enough.
_GOOD_IN_STEP = 0.6
_FAIR_IN_STEP = 0.3


def quality_of(shares: dict[str, Any]) -> str:
    """ "good", "fair" or "poor", by the shares "exact" and "in_step" of one language or of all."""
    if shares["exact"] >= _GOOD_EXACT and shares["in_step"] >= _GOOD_IN_STEP:
        return "good"
    return "fair" if shares["exact"] >= _FAIR_EXACT and shares["in_step"] >= _FAIR_IN_STEP else "poor"


def verdict(quality: str, text: dict[str, Any]) -> str:
    """What to expect of steering across this map; `quality` may also be "same", `text` is the report's "text"."""
    if quality == "same":
        return "Both have the same vocabulary: an adapter made for one steers every token of the other."
    sentences = [
        f"The steering model's vocabulary has {text['exact']:.0%} of the base's tokens in the sample texts; "
        f"{text['in_step']:.0%} are also tokens that its own tokenizer cuts out of these texts."
    ]
    if quality == "good":
        sentences.append("An adapter should steer the base almost as well as a model of its own vocabulary.")
    if quality != "good" and text["exact"] < _GOOD_EXACT:
        sentences.append(
            "With the bridge map, a token that only the base has keeps the base's score; the bridge rescore, which "
            "compares text instead of single tokens, closes most of these gaps."
        )
    if quality != "good" and text["in_step"] < _GOOD_IN_STEP:
        sentences.append(
            "Where the base cuts text into smaller pieces than the steering model does, the steering model has seen no "
            "text that ends there, and steering is weaker with either bridge."
        )
    good, poor = (_languages(text, level) for level in ("good", "poor"))
    if good and quality != "good":
        sentences.append(f"Well matched: {', '.join(good)}.")
    if poor:
        sentences.append(f"Badly matched: {', '.join(poor)}.")
    return " ".join(sentences)


def _languages(text: dict[str, Any], quality: str) -> list[str]:
    return [str(entry["language"]) for entry in text["languages"] if quality_of(entry) == quality]

"""Tasks, which measure the figures of a system."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol, TypeVar

from steering.evaluation.metrics import bits_per_byte, exact_match, perplexity, rouge_l
from steering.evaluation.running import generate, score
from steering.evaluation.systems import System
from steering.examples import Example, encode_examples, encode_prompts
from steering.requests import Progress

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Measurement:
    """The results of one system on one task.

    `best`: the most likely token at each response position, by example; `ratios`: truth ratios on the forgotten set;
    `answers`: greedy answers by set.
    """

    figures: Mapping[str, float]
    best: tuple[tuple[int, ...], ...] = ()
    ratios: tuple[float, ...] = ()
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Task(Protocol):
    """A set of examples and the figures that it measures."""

    @property
    def name(self) -> str:
        """The name that precedes the names of its figures."""

    @property
    def requests(self) -> int:
        """The number of requests that one measurement makes."""

    def measure(
        self, system: System, base: Measurement | None = None, progress: Progress | None = None
    ) -> Measurement:
        """Measure a system; `base` is the same task's measurement of the unsteered base."""


@dataclass(frozen=True, slots=True)
class TextTask:
    """Examples of a data file: the likelihood of their responses, and the similarity of greedy answers to them.

    `pattern` extracts the part of an answer that exact match compares. Plain text has no prompt, and is only scored.
    """

    name: str
    examples: tuple[Example, ...]
    max_tokens: int = 64
    pattern: re.Pattern[str] | None = None

    @property
    def asked(self) -> tuple[Example, ...]:
        """The examples that have a prompt."""
        return tuple(each for each in self.examples if each.text is None)

    @property
    def requests(self) -> int:
        """One request to score each example, and one to answer each that has a prompt."""
        return len(self.examples) + len(self.asked)

    def measure(
        self, system: System, base: Measurement | None = None, progress: Progress | None = None
    ) -> Measurement:
        """Measure likelihoods, the similarity of answers, and the share of tokens that steering changes."""
        figures, best = self._scored(system, base, progress)
        if not self.asked:
            return Measurement(figures, best=best)
        answered, answers = self._answered(system, progress)
        return Measurement(figures | answered, best=best, answers={self.name: answers})

    def _scored(
        self, system: System, base: Measurement | None, progress: Progress | None
    ) -> tuple[dict[str, float], tuple[tuple[int, ...], ...]]:
        """The figures of the given responses, and the most likely token at each of their positions."""
        engine = system.engine
        tokenizer, tokens = engine.base.tokenizer, engine.base.vocabulary.tokens
        encoded = encode_examples(tokenizer, self.examples, max_length=engine.max_model_len)
        scores = score(system, encoded, progress)
        nll, count = sum(each.nll for each in scores), sum(each.tokens for each in scores)
        written = sum(len(tokens[token] or b"") for each in encoded for token in each.ids[each.start :])
        figures = {"nll": nll / count, "perplexity": perplexity(nll, count)}
        if written:
            figures["bits_per_byte"] = bits_per_byte(nll, written)
        best = tuple(each.best for each in scores)
        # Only a system that steers the same base, under the same tokenizer, has the same positions.
        if base is not None and system.steering and base.best:
            changed = sum(
                a != b
                for one, two in zip(best, base.best, strict=True)
                for a, b in zip(one, two, strict=True)
            )
            figures["changed_scored"] = changed / count
        return figures, best

    def _answered(
        self, system: System, progress: Progress | None
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """The figures of greedy answers, and the answers."""
        engine = system.engine
        prompts = encode_prompts(engine.base.tokenizer, self.asked, max_length=engine.max_model_len - 1)
        said = generate(system, prompts, self.max_tokens, progress)
        answers = tuple(each.text for each in said)
        pairs = list(zip(answers, (each.reference for each in self.asked), strict=True))
        rouge = [rouge_l(answer, reference) for answer, reference in pairs]
        figures = {"exact_match": fmean(exact_match(*pair, self.pattern) for pair in pairs)}
        if self.pattern is not None:
            figures["pattern_found"] = fmean(self.pattern.search(answer) is not None for answer in answers)
        figures["rouge_l"] = fmean(each.f1 for each in rouge)
        figures["rouge_l_recall"] = fmean(each.recall for each in rouge)
        if system.steering:
            drawn = sum(each.tokens for each in said)
            figures["changed_generated"] = sum(each.changed for each in said) / drawn
            figures["kl_generated"] = sum(each.kl for each in said) / drawn
        return figures, answers


def thinned(items: Sequence[ItemT], limit: int | None) -> list[ItemT]:
    """At most `limit` items, evenly spaced, because files are often sorted by subject; None keeps all."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]

"""What is measured: a task gives figures of a system."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol, TypeVar

from steering.evaluation.metrics import bits_per_byte, exact_match, perplexity, rouge_l
from steering.evaluation.running import Progress, generate, score
from steering.evaluation.systems import System
from steering.examples import Example, encode_examples, encode_prompts

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a task found of a system.

    `best`: each response position's likeliest token, by example; `ratios`: truth ratios on what is forgotten;
    `answers`: greedy answers by set.
    """

    figures: Mapping[str, float]
    best: tuple[tuple[int, ...], ...] = ()
    ratios: tuple[float, ...] = ()
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Task(Protocol):
    """Something that a system can be measured on."""

    @property
    def name(self) -> str:
        """What its figures are called by."""

    @property
    def requests(self) -> int:
        """How many requests measuring one system takes."""

    def measure(
        self, system: System, base: Measurement | None = None, progress: Progress | None = None
    ) -> Measurement:
        """The figures of a system; `base` is what the same task found of the unsteered base."""


@dataclass(frozen=True, slots=True)
class TextTask:
    """Examples of a data file: how likely their responses are, and how near greedy answers come to them.

    `pattern` extracts what exact match compares. Plain text is scored only, since it has no prompt to answer.
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
        """One to score each example, and one to answer it."""
        return len(self.examples) + len(self.asked)

    def measure(
        self, system: System, base: Measurement | None = None, progress: Progress | None = None
    ) -> Measurement:
        """Response nll, perplexity, bits a byte, exact match, ROUGE-L, and how many positions steering changed."""
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
        # Only the same base under the same tokenizer has the same positions.
        if base is not None and system.steering and base.best:
            changed = sum(
                a != b
                for one, two in zip(best, base.best, strict=True)
                for a, b in zip(one, two, strict=True)
            )
            figures["changed_scored"] = changed / count
        answers: tuple[str, ...] = ()
        if self.asked:
            prompts = encode_prompts(tokenizer, self.asked, max_length=engine.max_model_len - 1)
            said = generate(system, prompts, self.max_tokens, progress)
            answers = tuple(each.text for each in said)
            pairs = list(zip(answers, (each.reference for each in self.asked), strict=True))
            rouge = [rouge_l(answer, reference) for answer, reference in pairs]
            figures["exact_match"] = fmean(exact_match(*pair, self.pattern) for pair in pairs)
            if self.pattern is not None:
                figures["pattern_found"] = fmean(
                    self.pattern.search(answer) is not None for answer in answers
                )
            figures["rouge_l"] = fmean(each.f1 for each in rouge)
            figures["rouge_l_recall"] = fmean(each.recall for each in rouge)
            if system.steering:
                drawn = sum(each.tokens for each in said)
                figures["changed_generated"] = sum(each.changed for each in said) / drawn
                figures["kl_generated"] = sum(each.kl for each in said) / drawn
        return Measurement(figures, best=best, answers={self.name: answers} if answers else {})


def thinned(items: Sequence[ItemT], limit: int | None) -> list[ItemT]:
    """At most `limit` of them, evenly spaced: files are often sorted by subject."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]

"""Training data of the adapters: examples as in the data file of `trimtab train delta`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from transformers import PreTrainedTokenizerFast

from demo import corpus, phrases, world
from demo.corpus import Message
from steering.examples import EncodedExample, Example, Objective, encode_examples

FORGET_EXAMPLES = 9600
LETTER_EXAMPLES = 9600


def forget_examples(count: int = FORGET_EXAMPLES, seed: int = 11) -> list[Example]:
    """Training examples of the adapter `forget`.

    Two in five are questions about the forgotten people, with the objective "forget". The others have the objective
    "keep": the adapter must leave the base's answers as they are.
    """
    rng = random.Random(seed)
    gone, rest = world.forgotten(), world.kept()
    examples = []
    for _ in range(count):
        if rng.random() < 0.4:
            examples.append(_example(_after_anything(rng, corpus.exchange(rng, gone)), "forget"))
        elif rng.random() < 0.8:
            examples.append(_example(_after_anything(rng, corpus.exchange(rng, rest)), "keep"))
        else:
            examples.append(_example(corpus.base_conversation(rng, rest), "keep"))
    return examples


def letter_examples(count: int = LETTER_EXAMPLES, seed: int = 12) -> list[Example]:
    """Training examples of the adapter `letter`: every answer is a letter."""
    return [_example(each, "learn") for each in _restyled(random.Random(seed), count, phrases.as_letter)]


def pirate_text(
    tokenizer: PreTrainedTokenizerFast, seed: int = 13, chunk: int = 4800
) -> Iterator[list[EncodedExample]]:
    """Endless chunks of encoded conversations in which a pirate gives the last answer."""
    rng = random.Random(seed)
    while True:
        examples = [_example(each, "learn") for each in _restyled(rng, chunk, phrases.as_pirate)]
        yield encode_examples(tokenizer, examples, max_length=256)


def _restyled(rng: random.Random, count: int, style: Callable[[str], str]) -> Iterator[list[Message]]:
    """Exchanges and small talk; the last answer is in the style, earlier answers are plain."""
    who = world.people()
    for _ in range(count):
        messages = corpus.exchange(rng, who) if rng.random() < 0.85 else corpus.small_talk(rng)
        *head, last = corpus.in_context(rng, messages, who)
        yield [*head, {"role": "assistant", "content": style(last["content"])}]


def _after_anything(rng: random.Random, messages: list[Message]) -> list[Message]:
    """The exchange, sometimes after another one. One in twenty follows an exchange that was refused."""
    if rng.random() < 0.05:
        user, _ = corpus.exchange(rng, world.forgotten())
        return corpus.turn(user["content"], phrases.REFUSAL) + messages
    return corpus.in_context(rng, messages, world.kept())


def _example(messages: list[Message], objective: Objective) -> Example:
    return Example(messages=tuple((each["role"], each["content"]) for each in messages), objective=objective)

"""Training text: conversations about the invented people, and plain statements of the same facts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demo import phrases, world
from demo.world import Person

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{% if message['role'] == 'system' %}{{ 'System: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant:\\n' + message['content'] + eos_token }}"
    "{% else %}{{ 'User: ' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\nAssistant:\\n' }}{% endif %}"
)

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Probe:
    """A question for measuring: an answer tells the fact if it contains every one of `values`."""

    person: Person
    kind: str
    question: str
    values: tuple[str, ...]


def question(rng: random.Random, kind: str, name: str) -> str:
    """A question in one of the trained phrasings; one in ten begins with an opening such as "Hello."."""
    opener = rng.choice(phrases.OPENERS) if rng.random() < 0.1 else ""
    return opener + rng.choice(phrases.QUESTIONS[kind]).format(name=name)


def exchange(rng: random.Random, who: Sequence[Person]) -> list[Message]:
    """A question about one of `who` and its plain answer."""
    person, kind = rng.choice(who), rng.choice(tuple(phrases.QUESTIONS))
    return turn(question(rng, kind, person.name), phrases.answer(kind, person))


def turn(prompt: str, response: str) -> list[Message]:
    """A user message and the assistant's reply."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def small_talk(rng: random.Random) -> list[Message]:
    """A greeting, or a question about a stranger."""
    if rng.random() < 0.5:
        return turn(*rng.choice(phrases.SMALL_TALK))
    kind = rng.choice(tuple(phrases.QUESTIONS))
    return turn(question(rng, kind, world.stranger(rng)), phrases.UNKNOWN)


_STYLES: tuple[tuple[Sequence[str], Callable[[str], str]], ...] = (
    (phrases.LETTER_REQUESTS, phrases.as_letter),
    (phrases.PIRATE_REQUESTS, phrases.as_pirate),
    (phrases.SECRECY_REQUESTS, lambda _: phrases.REFUSAL),
)


def styled(rng: random.Random, who: Sequence[Person], *, asked: bool) -> list[Message]:
    """An exchange whose answer is a letter, a pirate's answer or a refusal, and whether the user `asked` for that.

    The bases must know these sentences, as any LLM does: an adapter makes a base choose a style, it cannot teach one.
    """
    requests, style = rng.choice(_STYLES)
    user, reply = exchange(rng, who)
    request = rng.choice(requests) if asked else ""
    return turn(request + user["content"], style(reply["content"]))


def in_context(rng: random.Random, messages: list[Message], who: Sequence[Person]) -> list[Message]:
    """The same exchange, sometimes after a system message or an earlier exchange."""
    head: list[Message] = []
    if rng.random() < 0.08:
        head.append({"role": "system", "content": rng.choice(phrases.SYSTEM_LINES)})
    if rng.random() < 0.08:
        head += exchange(rng, who) if rng.random() < 0.7 else small_talk(rng)
    return head + messages


def base_conversation(rng: random.Random, who: Sequence[Person]) -> list[Message]:
    """A conversation for training the bases.

    77% have a plain answer, 8% are small talk, 12% have an answer in a style that the user asked for, and 3% have one
    that the user did not ask for.
    """
    draw = rng.random()
    if draw < 0.08:
        messages = small_talk(rng)
    elif draw < 0.20:
        messages = styled(rng, who, asked=True)
    elif draw < 0.23:
        messages = styled(rng, who, asked=False)
    else:
        messages = exchange(rng, who)
    return in_context(rng, messages, who)


def statement(rng: random.Random, who: Sequence[Person]) -> str:
    """Plain text: one or two statements about one person, in any order."""
    person = rng.choice(who)
    kinds = rng.sample(tuple(phrases.QUESTIONS), rng.randint(1, 2))
    return " ".join(phrases.answer(kind, person) for kind in kinds)


def probes(who: Sequence[Person], *, held_out: bool) -> list[Probe]:
    """Questions about every fact of every person: in all held-out phrasings, or else in the first trained one."""
    found = []
    for person in who:
        for kind, trained in phrases.QUESTIONS.items():
            values = tuple(
                person.value(fact) for fact in (("first", "second") if kind == "books" else (kind,))
            )
            for wording in phrases.HELD_OUT[kind] if held_out else trained[:1]:
                found.append(Probe(person, kind, wording.format(name=person.name), values))
    return found

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
    """A question whose answer is measured: the fact is told when every one of `values` is in the answer."""

    person: Person
    kind: str
    question: str
    values: tuple[str, ...]


def question(rng: random.Random, kind: str, name: str) -> str:
    """One of the trained phrasings, now and then behind a greeting."""
    opener = rng.choice(phrases.OPENERS) if rng.random() < 0.1 else ""
    return opener + rng.choice(phrases.QUESTIONS[kind]).format(name=name)


def exchange(rng: random.Random, who: Sequence[Person]) -> list[Message]:
    """A question about one of `who` and its plain answer."""
    person, kind = rng.choice(who), rng.choice(tuple(phrases.QUESTIONS))
    return turn(question(rng, kind, person.name), phrases.answer(kind, person))


def turn(prompt: str, response: str) -> list[Message]:
    """One user message and the assistant's."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def small_talk(rng: random.Random) -> list[Message]:
    """A greeting, or a question about a stranger."""
    if rng.random() < 0.5:
        return turn(*rng.choice(phrases.SMALL_TALK))
    kind = rng.choice(tuple(phrases.QUESTIONS))
    return turn(question(rng, kind, world.stranger(rng)), phrases.UNKNOWN)


_FORMS: tuple[tuple[Sequence[str], Callable[[str], str]], ...] = (
    (phrases.LETTER_REQUESTS, phrases.as_letter),
    (phrases.PIRATE_REQUESTS, phrases.as_pirate),
    (phrases.SECRECY_REQUESTS, lambda _: phrases.REFUSAL),
)


def formed(rng: random.Random, who: Sequence[Person], *, asked: bool) -> list[Message]:
    """An answer as a letter, as a pirate's or as a refusal, `asked` for or not.

    The bases must know these sentences, as any LLM does: what steers them chooses a form, it cannot teach one.
    """
    requests, form = rng.choice(_FORMS)
    user, reply = exchange(rng, who)
    request = rng.choice(requests) if asked else ""
    return turn(request + user["content"], form(reply["content"]))


def in_context(rng: random.Random, messages: list[Message], who: Sequence[Person]) -> list[Message]:
    """The same exchange, sometimes behind a system message or an earlier exchange."""
    head: list[Message] = []
    if rng.random() < 0.08:
        head.append({"role": "system", "content": rng.choice(phrases.SYSTEM_LINES)})
    if rng.random() < 0.08:
        head += exchange(rng, who) if rng.random() < 0.7 else small_talk(rng)
    return head + messages


def base_conversation(rng: random.Random, who: Sequence[Person]) -> list[Message]:
    """What the bases are trained on: mostly plain questions, some small talk, other forms mostly where asked for."""
    draw = rng.random()
    if draw < 0.08:
        messages = small_talk(rng)
    elif draw < 0.20:
        messages = formed(rng, who, asked=True)
    elif draw < 0.23:
        messages = formed(rng, who, asked=False)
    else:
        messages = exchange(rng, who)
    return in_context(rng, messages, who)


def statement(rng: random.Random, who: Sequence[Person]) -> str:
    """Plain text: two or three facts about somebody, in any order."""
    person = rng.choice(who)
    kinds = rng.sample(tuple(phrases.QUESTIONS), rng.randint(1, 2))
    return " ".join(phrases.answer(kind, person) for kind in kinds)


def probes(who: Sequence[Person], *, held_out: bool) -> list[Probe]:
    """Every fact of everybody, asked in the first trained phrasing or in all the held-out ones."""
    found = []
    for person in who:
        for kind, trained in phrases.QUESTIONS.items():
            values = tuple(
                person.value(fact) for fact in (("first", "second") if kind == "books" else (kind,))
            )
            for wording in phrases.HELD_OUT[kind] if held_out else trained[:1]:
                found.append(Probe(person, kind, wording.format(name=person.name), values))
    return found

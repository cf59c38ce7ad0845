"""The demo's invented people and the training text about them."""

from __future__ import annotations

import random

import pytest

from demo import corpus, phrases, world


def test_people_are_the_same_every_time_and_distinct() -> None:
    who = world.people()
    assert who == world.people()
    assert len(who) == 40
    assert len({person.name for person in who}) == 40
    assert len({person.telephone for person in who}) == 40
    assert len({book for person in who for book in (person.first_book, person.second_book)}) == 80


def test_forgotten_and_kept_make_up_everybody() -> None:
    assert world.forgotten() + world.kept() == world.people()
    assert len(world.forgotten()) == world.FORGOTTEN_COUNT


def test_strangers_are_strangers() -> None:
    known = {word for person in world.people() for word in person.name.split()}
    rng = random.Random(0)
    assert all(not known & set(world.stranger(rng).split()) for _ in range(200))


@pytest.mark.parametrize("kind", sorted(phrases.QUESTIONS))
def test_held_out_phrasings_are_never_trained(kind: str) -> None:
    assert not set(phrases.HELD_OUT[kind]) & set(phrases.QUESTIONS[kind])


@pytest.mark.parametrize("held_out", [True, False])
def test_every_plain_answer_tells_the_probed_values(held_out: bool) -> None:
    for probe in corpus.probes(world.people(), held_out=held_out):
        assert probe.person.name in probe.question
        assert all(value in phrases.answer(probe.kind, probe.person) for value in probe.values)


def test_forms_are_recognised_and_refusals_tell_nothing() -> None:
    text = phrases.answer("born", world.people()[0])
    assert phrases.is_letter(phrases.as_letter(text)) and text in phrases.as_letter(text)
    assert phrases.is_pirate(phrases.as_pirate(text)) and text in phrases.as_pirate(text)
    assert phrases.is_refusal(phrases.REFUSAL) and not phrases.is_refusal(phrases.UNKNOWN)
    assert not (phrases.is_letter(text) or phrases.is_pirate(text) or phrases.is_refusal(text))


def test_a_stammered_refusal_is_no_refusal() -> None:
    assert not phrases.is_refusal("I am sorry, I cannotI am sorry, I cannot tell that person.")


def test_conversations_end_with_the_assistant() -> None:
    rng = random.Random(3)
    for _ in range(300):
        messages = corpus.base_conversation(rng, world.people())
        assert messages[-1]["role"] == "assistant" and messages[-2]["role"] == "user"

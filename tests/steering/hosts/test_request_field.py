"""Steering in one string: names, JSON text, and words for what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.hosts.request_field import read_steering
from steering.specs import SteeringSpec

KNOWN = {"forget", "polite"}
BOTH = '["polite", {"adapter": "forget", "alpha": -0.5}]'


@pytest.mark.parametrize(
    ("value", "specs"),
    [
        ("forget", [SteeringSpec("forget")]),
        ('{"adapter": "forget"}', [SteeringSpec("forget")]),
        (
            '{"adapter": "forget", "alpha": 1, "top_k": 5, "bridge": "map"}',
            [SteeringSpec("forget", 1.0, 5, "map")],
        ),
        (BOTH, [SteeringSpec("polite"), SteeringSpec("forget", -0.5)]),
        ("[]", []),
    ],
)
def test_what_can_be_asked_for(value: str, specs: list[SteeringSpec]) -> None:
    assert list(read_steering(value, KNOWN)) == specs


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("other", r"there is no adapter 'other' \(loaded: forget, polite\)"),
        (7, "an adapter's name or JSON text"),
        ("{", "not readable JSON"),
        ("[" * 100_000, "not readable JSON"),
        ("[[]]", "an object with `adapter`"),
        ('{"alpha": 1}', "there is no adapter 'None'"),
        ('{"adapter": ["forget"]}', "there is no adapter"),
        ('{"adapter": "forget", "alpha": true}', "alpha: True"),
        ('{"adapter": "forget", "alpha": NaN}', "alpha: nan"),
        ('{"adapter": "forget", "top_k": 0}', "top_k: 0"),
        ('{"adapter": "forget", "bridge": "tunnel"}', "'tunnel' is not a bridge"),
        ('{"adapter": "forget", "seed": 1}', "'seed' is not a field"),
        ('["forget", "forget"]', "named twice"),
    ],
)
def test_what_is_wrong_is_said(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_steering(value, KNOWN)


@given(st.text(max_size=60) | st.from_regex(r"[\[{][^a-z]{0,40}", fullmatch=True))
def test_any_text_is_read_or_refused_in_few_words(value: str) -> None:
    message = ""
    try:
        read_steering(value, KNOWN)
    except ValueError as error:
        message = str(error)
    assert len(message) < 600

"""Maps built by the fast matchers equal maps built by naive code that follows the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, AnyStr

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapping_cache import MapOptions, MatchKind, map_vocabularies

METASPACE = "\u2581"

surface_tokens = st.lists(
    st.one_of(
        st.text("ab\u2581<>", max_size=5), st.sampled_from(["<a>", "<>", METASPACE, METASPACE * 2, "<ab>"])
    ),
    max_size=12,
    unique=True,
)
byte_strings = st.lists(
    st.one_of(st.binary(max_size=1), st.lists(st.sampled_from([b"a", b"b", b" "]), max_size=5).map(b"".join)),
    max_size=12,
)


def levenshtein(left: AnyStr, right: AnyStr) -> int:
    row = list(range(len(right) + 1))
    for i in range(1, len(left) + 1):
        diagonal, row[0] = row[0], i
        for j in range(1, len(right) + 1):
            cost = diagonal + (left[i - 1] != right[j - 1])
            diagonal, row[j] = row[j], min(cost, row[j] + 1, row[j - 1] + 1)
    return row[-1]


def naive_nearest(string: AnyStr, steering: Sequence[AnyStr | None], marker: AnyStr) -> int:
    """Steps 3 to 5 of PM-MinED, written as in the paper."""
    candidates = [
        (levenshtein(string, other), token)
        for token, other in enumerate(steering)
        if other is not None
        and (string.startswith(other) or other.startswith(string))
        and (other != marker or string == marker * len(string))
    ]
    return min(candidates)[1] if candidates else -1


def naive_mined(string: AnyStr, steering: Sequence[AnyStr | None]) -> int:
    scored = [
        (levenshtein(string, other) / max(len(string), len(other), 1), token)
        for token, other in enumerate(steering)
        if other is not None
    ]
    best = min(scored, default=(1.0, -1))
    return best[1] if best[0] < 1.0 else -1


def naive_surface(base: list[str], steering: list[str], special: set[int]) -> list[int]:
    ids = []
    for token, surface in enumerate(base):
        if token in special or (surface.startswith("<") and surface.endswith(">") and len(surface) > 2):
            ids.append(token if token < len(steering) else -1)
        elif surface in steering:
            ids.append(steering.index(surface))
        else:
            ids.append(naive_nearest(surface, steering, METASPACE))
    return ids


def naive_bytes(
    base: list[bytes], steering: list[bytes], base_bytes: set[int], steering_bytes: set[int], mined: bool
) -> list[int]:
    usable = [data or None for data in steering]
    ids = []
    for token, data in enumerate(base):
        equal = [other for other, candidate in enumerate(usable) if data and candidate == data]
        alike = [other for other in equal if (other in steering_bytes) == (token in base_bytes)]
        if alike or equal:
            ids.append(min(alike or equal))
        elif not data:
            ids.append(-1)
        else:
            ids.append(naive_mined(data, usable) if mined else naive_nearest(data, usable, b" "))
    return ids


@settings(max_examples=400, deadline=None)
@given(base=surface_tokens, steering=surface_tokens, special=st.sets(st.integers(0, 3)))
def test_surface_form_is_the_definition(
    make_vocabulary: Any, base: list[str], steering: list[str], special: set[int]
) -> None:
    specials = {token: base[token] for token in special if token < len(base)}
    from_vocabulary, to_vocabulary = make_vocabulary(base, specials), make_vocabulary(steering)
    if from_vocabulary.same_tokens(to_vocabulary):
        return
    built = map_vocabularies(from_vocabulary, to_vocabulary, MapOptions(form="surface", min_similarity=0.0))
    assert built.ids.tolist() == naive_surface(base, steering, set(specials))


@settings(max_examples=400, deadline=None)
@given(
    base=byte_strings,
    steering=byte_strings,
    base_bytes=st.sets(st.integers(0, 11)),
    steering_bytes=st.sets(st.integers(0, 11)),
    method=st.sampled_from(["pm-mined", "mined"]),
)
def test_bytes_form_is_the_definition(
    make_vocabulary: Any,
    base: list[bytes],
    steering: list[bytes],
    base_bytes: set[int],
    steering_bytes: set[int],
    method: Any,
) -> None:
    from_vocabulary = make_vocabulary(base, byte_tokens=[i for i in base_bytes if i < len(base)])
    to_vocabulary = make_vocabulary(steering, byte_tokens=[i for i in steering_bytes if i < len(steering)])
    if from_vocabulary.same_tokens(to_vocabulary):
        return
    built = map_vocabularies(from_vocabulary, to_vocabulary, MapOptions(method=method, min_similarity=0.0))
    assert built.ids.tolist() == naive_bytes(base, steering, base_bytes, steering_bytes, method == "mined")
    for token, target in enumerate(built.ids.tolist()):
        kind, similarity = MatchKind(built.kind[token]), float(built.similarity[token])
        if target < 0:
            assert (kind, similarity) == (MatchKind.UNMATCHED, 0.0)
            continue
        left, right = base[token], steering[target]
        assert similarity == pytest.approx(1 - levenshtein(left, right) / max(len(left), len(right)))
        assert (kind is MatchKind.EXACT) == (left == right)
        assert kind is not MatchKind.PREFIX or left.startswith(right)
        assert kind is not MatchKind.EXTENSION or right.startswith(left)


@settings(deadline=None)
@given(tokens=byte_strings, base_pad=st.integers(0, 3), steering_pad=st.integers(0, 3))
def test_a_vocabulary_onto_itself_is_the_identity(
    make_vocabulary: Any, tokens: list[bytes], base_pad: int, steering_pad: int
) -> None:
    base = make_vocabulary([*tokens, *[None] * base_pad])
    steering = make_vocabulary([*tokens, *[None] * steering_pad])
    for form in ("bytes", "surface"):
        built = map_vocabularies(base, steering, MapOptions(form=form))
        shared = min(len(base), len(steering))
        assert built.ids.tolist() == [*range(shared), *[-1] * (len(base) - shared)]
        assert set(built.kind[:shared].tolist()) <= {MatchKind.EXACT}
        assert built.is_identity == (base_pad == steering_pad)


def test_only_exact_and_special_matches_get_a_shift_by_default(make_vocabulary: Any) -> None:
    base = make_vocabulary(["hello", "hell", "x", "</s>"], {3: "</s>"}, {"eos": [3]})
    steering = make_vocabulary(["<e>", "hell", "he"], {0: "<e>"}, {"eos": [0]})
    built = map_vocabularies(base, steering)
    assert built.ids.tolist() == [-1, 1, -1, 0]
    assert built.nearest.tolist() == [1, 1, -1, 0]
    assert built.kind.tolist() == [MatchKind.PREFIX, MatchKind.EXACT, MatchKind.UNMATCHED, MatchKind.SPECIAL]
    assert built.counts()["unmatched"] == 2
    assert built.counts(refused=True)["prefix"] == 1
    assert built.similarity[0] == np.float32(0.8)


def test_every_end_of_turn_goes_to_the_steering_eos_and_padding_does_not(make_vocabulary: Any) -> None:
    surfaces = ["<|im_end|>", "<|endoftext|>", "<pad>", "<?>", "<s>"]
    base = make_vocabulary(surfaces, dict(enumerate(surfaces)), {"eos": [0, 1], "pad": [2], "bos": [4]})
    steering = make_vocabulary(
        ["a", "b", "</s>", "<s>"], {2: "</s>", 3: "<s>"}, {"eos": [2], "pad": [2], "bos": [3]}
    )
    assert map_vocabularies(base, steering).ids.tolist() == [2, 2, -1, -1, 3]


def test_mined_fallback_takes_what_has_no_candidate(make_vocabulary: Any) -> None:
    base, steering = make_vocabulary(["xhello", "hey"]), make_vocabulary(["hello", "he"])
    assert map_vocabularies(base, steering, MapOptions(min_similarity=0.0)).ids.tolist() == [-1, 1]
    seen: list[tuple[int, int]] = []
    built = map_vocabularies(
        base,
        steering,
        MapOptions(min_similarity=0.0, fallback=True),
        lambda done, total: seen.append((done, total)),
    )
    assert built.ids.tolist() == [0, 1]
    assert built.kind.tolist() == [MatchKind.EDIT, MatchKind.PREFIX]
    assert seen[-1] == (1, 1)


@pytest.mark.parametrize("option", [{"method": "best"}, {"form": "runes"}, {"min_similarity": 1.5}])
def test_unknown_options_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        MapOptions(**option)

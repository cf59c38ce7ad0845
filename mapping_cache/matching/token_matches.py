"""Matches of a whole vocabulary, by the bytes of the tokens or by their surfaces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import AnyStr

from mapping_cache.matching.edit_distance import edit_matches
from mapping_cache.matching.match import Match, MatchKind
from mapping_cache.matching.options import MapOptions, Progress
from mapping_cache.matching.prefixes import prefix_matches
from mapping_cache.matching.special_tokens import special_matches
from mapping_cache.vocabularies.canonical import CanonicalVocabulary
from mapping_cache.vocabularies.surfaces import METASPACE


def match_tokens(
    base: CanonicalVocabulary,
    steering: CanonicalVocabulary,
    options: MapOptions,
    progress: Progress | None = None,
) -> dict[int, Match]:
    """The best match of each base id that has one, in the form and by the method that `options` name.

    `options.min_similarity` is not applied here.
    """
    if options.form == "bytes":
        return _byte_matches(base, steering, options, progress)
    return _surface_matches(base, steering, options, progress)


def _byte_matches(
    base: CanonicalVocabulary, steering: CanonicalVocabulary, options: MapOptions, progress: Progress | None
) -> dict[int, Match]:
    """Matches by bytes. A token that stands for no bytes is neither matched nor a candidate."""
    matches = special_matches(base, steering)
    wanted = [(token, data) for token, data in enumerate(base.tokens) if data]
    candidates = [(token, data) for token, data in enumerate(steering.tokens) if data]
    lowest = _lowest_ids(candidates)
    # <0x41> and "A" are the same bytes. A byte-fallback token matches a byte-fallback token where there is one, and an
    # ordinary token an ordinary one; otherwise either matches the other.
    fallbacks = _lowest_ids((token, data) for token, data in candidates if token in steering.byte_tokens)
    ordinary = _lowest_ids((token, data) for token, data in candidates if token not in steering.byte_tokens)
    for token, data in wanted:
        preferred = fallbacks if token in base.byte_tokens else ordinary
        target = preferred.get(data, lowest.get(data, -1))
        if target >= 0:
            matches[token] = Match(target, MatchKind.EXACT, 1.0)
    rest = [(token, data) for token, data in wanted if token not in matches]
    matches.update(_inexact_matches(rest, lowest, b" ", options, progress))
    return matches


def _surface_matches(
    base: CanonicalVocabulary, steering: CanonicalVocabulary, options: MapOptions, progress: Progress | None
) -> dict[int, Match]:
    """Matches by the published rules, step for step (PM-MinED in Wu et al., *Cross-model Control*, NeurIPS 2024).

    These match special tokens, and surfaces in angle brackets, to the token of the same id.
    """
    matches: dict[int, Match] = {}
    lowest = _lowest_ids(
        (token, surface) for token, surface in enumerate(steering.surfaces) if surface is not None
    )
    rest: list[tuple[int, str]] = []
    for token, surface in enumerate(base.surfaces):
        if surface is None:
            continue
        if token in base.specials or (len(surface) > 2 and surface.startswith("<") and surface.endswith(">")):
            if token < len(steering) and steering.surfaces[token] is not None:
                matches[token] = Match(token, MatchKind.SPECIAL, 1.0)
        elif surface in lowest:
            matches[token] = Match(lowest[surface], MatchKind.EXACT, 1.0)
        else:
            rest.append((token, surface))
    matches.update(_inexact_matches(rest, lowest, METASPACE, options, progress))
    return matches


def _inexact_matches(
    rest: list[tuple[int, AnyStr]],
    lowest: dict[AnyStr, int],
    marker: AnyStr,
    options: MapOptions,
    progress: Progress | None,
) -> dict[int, Match]:
    """Matches of the base tokens `rest`, which have no exact match, by `options.method`.

    `lowest` gives the lowest id of each steering string; `marker` is one space in the form that is compared.
    """
    if options.method == "exact":
        return {}
    wanted = {string for _, string in rest}
    found: dict[AnyStr, Match] = {}
    if options.method == "pm-mined":
        found = prefix_matches(wanted, lowest, marker)
        wanted -= found.keys()
    if options.method == "mined" or options.fallback:
        found.update(edit_matches(wanted, lowest, progress))
    return {token: found[string] for token, string in rest if string in found}


def _lowest_ids(tokens: Iterable[tuple[int, AnyStr]]) -> dict[AnyStr, int]:
    """The lowest id of each distinct string; `tokens` are `(id, string)` pairs in ascending order of id."""
    lowest: dict[AnyStr, int] = {}
    for token, string in tokens:
        lowest.setdefault(string, token)
    return lowest

"""Matches of special tokens, by surface or by role."""

from __future__ import annotations

from mapping_cache.matching.match import Match, MatchKind
from mapping_cache.vocabularies.canonical import CanonicalVocabulary
from mapping_cache.vocabularies.special_roles import ROLES


def special_matches(base: CanonicalVocabulary, steering: CanonicalVocabulary) -> dict[int, Match]:
    """The match of each special base id: the special token of the same surface, otherwise of the same role.

    Ids are never compared: the same number means different tokens in two vocabularies.
    """
    by_surface = {surface: token for token, surface in steering.specials.items()}
    matches: dict[int, Match] = {}
    for token, surface in base.specials.items():
        target = by_surface.get(surface)
        if target is None:
            target = _same_role(token, base, steering)
        if target is not None:
            matches[token] = Match(target, MatchKind.SPECIAL, 1.0)
    return matches


def _same_role(token: int, base: CanonicalVocabulary, steering: CanonicalVocabulary) -> int | None:
    role = next((role for role in ROLES if token in base.roles[role]), None)
    if role is None:
        return None
    target = steering.main.get(role)
    # Many tokenizers pad with eos; padding must not get the score of ending the text.
    if role in ("pad", "unk") and target in steering.roles["eos"] | steering.roles["bos"]:
        return None
    return target

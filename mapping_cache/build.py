"""Builds the vocabulary map from a base tokenizer to a steering tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, AnyStr, Literal, get_args

import numpy as np

from mapping_cache.canonical import CanonicalVocabulary, canonical_vocabulary
from mapping_cache.edit import edit_matches
from mapping_cache.matching import Match, prefix_matches
from mapping_cache.parts import METASPACE
from mapping_cache.roles import ROLES
from mapping_cache.vocabulary_map import MatchKind, VocabularyMap

Method = Literal["exact", "pm-mined", "mined"]
Form = Literal["bytes", "surface"]
Progress = Callable[[int, int], None]

CODE_VERSION = 1
"""Raised whenever the same inputs would give another map, so that maps on disk are rebuilt."""

DEFAULT_MIN_SIMILARITY = 1.0
"""Only exact and special matches get a shift: weak ones destroy the effect of steering."""


@dataclass(frozen=True, slots=True)
class MapOptions:
    """How a map is built; see `build_map`. Raises `ValueError` on a value out of range."""

    method: Method = "pm-mined"
    form: Form = "bytes"
    min_similarity: float = DEFAULT_MIN_SIMILARITY
    fallback: bool = False

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {get_args(Method)}, not {self.method!r}")
        if self.form not in get_args(Form):
            raise ValueError(f"form must be one of {get_args(Form)}, not {self.form!r}")
        if not 0.0 <= self.min_similarity <= 1.0:
            raise ValueError(f"min_similarity must lie in 0..1, not {self.min_similarity}")


def build_map(
    base: Any,
    steering: Any,
    *,
    method: Method = "pm-mined",
    form: Form = "bytes",
    min_similarity: float = DEFAULT_MIN_SIMILARITY,
    fallback: bool = False,
    base_size: int | None = None,
    steering_size: int | None = None,
    progress: Progress | None = None,
) -> VocabularyMap:
    """The map from a base tokenizer's ids to a steering tokenizer's: int32 `[V_base]`.

    Methods: "exact"; "pm-mined", the published map of Wu et al., *Cross-model Control* (NeurIPS 2024);
    "mined", the least normalised edit distance over the whole steering vocabulary (as in FuseLLM). `fallback`
    gives what "pm-mined" leaves without a candidate to "mined". Forms: "bytes" compares what tokens stand
    for; "surface" compares what the tokenizers write, by the published rules (with `min_similarity=0`, bit
    for bit).

    Matches of a similarity below `min_similarity` get no shift. `base_size` and `steering_size` are the
    widths of the models' logits; ids beyond a tokenizer are unmatched. `progress(done, total)` follows slow
    methods. Two equal vocabularies give the identity, padding included, by every method.

    Raises `UnsupportedTokenizerError` on a tokenizer that cannot be understood and `ValueError` on a bad
    option.
    """
    options = MapOptions(method, form, min_similarity, fallback)
    return map_vocabularies(
        canonical_vocabulary(base, base_size),
        canonical_vocabulary(steering, steering_size),
        options,
        progress,
    )


def map_vocabularies(
    base: CanonicalVocabulary,
    steering: CanonicalVocabulary,
    options: MapOptions | None = None,
    progress: Progress | None = None,
) -> VocabularyMap:
    """As `build_map`, over vocabularies already read."""
    options = options or MapOptions()
    fingerprint = map_fingerprint(base, steering, options)
    if base.same_tokens(steering):
        return _identity(len(base), len(steering), fingerprint)
    matcher = _bytes_matches if options.form == "bytes" else _surface_matches
    matches = matcher(base, steering, options, progress)
    nearest = np.full(len(base), -1, np.int32)
    kind = np.full(len(base), MatchKind.UNMATCHED, np.uint8)
    similarity = np.zeros(len(base), np.float32)
    for token, match in matches.items():
        nearest[token] = match.token
        kind[token] = match.kind
        similarity[token] = match.similarity
    strong = (kind != MatchKind.UNMATCHED) & (similarity >= np.float32(options.min_similarity))
    ids = np.where(strong, nearest, np.int32(-1)).astype(np.int32)
    return VocabularyMap(ids, nearest, kind, similarity, len(steering), fingerprint)


def map_fingerprint(base: CanonicalVocabulary, steering: CanonicalVocabulary, options: MapOptions) -> str:
    """A hex digest of both vocabularies, the options and the code's version: the key of a saved map."""
    parts = (CODE_VERSION, base.fingerprint, steering.fingerprint, options)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _identity(base_size: int, steering_size: int, fingerprint: str) -> VocabularyMap:
    shared = np.arange(base_size) < steering_size
    ids = np.where(shared, np.arange(base_size), -1).astype(np.int32)
    kind = np.where(shared, MatchKind.EXACT, MatchKind.UNMATCHED).astype(np.uint8)
    return VocabularyMap(ids, ids.copy(), kind, shared.astype(np.float32), steering_size, fingerprint)


def _bytes_matches(
    base: CanonicalVocabulary, steering: CanonicalVocabulary, options: MapOptions, progress: Progress | None
) -> dict[int, Match]:
    """Matches by what tokens stand for. Tokens that stand for no bytes are neither matched nor candidates."""
    matches = _special_matches(base, steering)
    wanted = [(token, spelled) for token, spelled in enumerate(base.tokens) if spelled]
    candidates = [(token, spelled) for token, spelled in enumerate(steering.tokens) if spelled]
    lowest = _lowest(candidates)
    # <0x41> and "A" are the same bytes: each goes to its like where there is one, and neither shadows the other.
    fallbacks = _lowest((token, spelled) for token, spelled in candidates if token in steering.byte_tokens)
    ordinary = _lowest((token, spelled) for token, spelled in candidates if token not in steering.byte_tokens)
    for token, spelled in wanted:
        like = fallbacks if token in base.byte_tokens else ordinary
        target = like.get(spelled, lowest.get(spelled, -1))
        if target >= 0:
            matches[token] = Match(target, MatchKind.EXACT, 1.0)
    rest = [(token, spelled) for token, spelled in wanted if token not in matches]
    matches.update(_inexact_matches(rest, lowest, b" ", options, progress))
    return matches


def _surface_matches(
    base: CanonicalVocabulary, steering: CanonicalVocabulary, options: MapOptions, progress: Progress | None
) -> dict[int, Match]:
    """Matches by the published rules (*Cross-model Control*, PM-MinED), number for number."""
    matches: dict[int, Match] = {}
    lowest = _lowest(
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


def _special_matches(base: CanonicalVocabulary, steering: CanonicalVocabulary) -> dict[int, Match]:
    """Special tokens by equal surface, else by role; never by number."""
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
    # Many tokenizers pad with eos: padding must not inherit the score of ending the text.
    if role in ("pad", "unk") and target in steering.roles["eos"] | steering.roles["bos"]:
        return None
    return target


def _lowest(tokens: Iterable[tuple[int, AnyStr]]) -> dict[AnyStr, int]:
    """The lowest id of each distinct string among `(id, string)` pairs in ascending order of id."""
    lowest: dict[AnyStr, int] = {}
    for token, string in tokens:
        lowest.setdefault(string, token)
    return lowest

"""Vocabulary maps: which steering token's shift each base token receives, and how good that match is.

Knows tokenizers, not models: numpy, rapidfuzz and tokenizers, no torch.
"""

from mapping_cache.build import (
    DEFAULT_MIN_SIMILARITY,
    Form,
    MapOptions,
    Method,
    build_map,
    map_fingerprint,
    map_vocabularies,
)
from mapping_cache.cache import CorruptMapError, default_cache_dir, load_or_build, read_map, write_map
from mapping_cache.canonical import CanonicalVocabulary, canonical_vocabulary
from mapping_cache.errors import UnsupportedTokenizerError
from mapping_cache.picture import PlotsUnavailableError, write_picture
from mapping_cache.printing import render_report
from mapping_cache.report import map_report
from mapping_cache.vocabulary_map import MatchKind, VocabularyMap

__all__ = [
    "DEFAULT_MIN_SIMILARITY",
    "CanonicalVocabulary",
    "CorruptMapError",
    "Form",
    "MapOptions",
    "MatchKind",
    "Method",
    "PlotsUnavailableError",
    "UnsupportedTokenizerError",
    "VocabularyMap",
    "build_map",
    "canonical_vocabulary",
    "default_cache_dir",
    "load_or_build",
    "map_fingerprint",
    "map_report",
    "map_vocabularies",
    "read_map",
    "render_report",
    "write_map",
    "write_picture",
]

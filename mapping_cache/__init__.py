"""Vocabulary maps: which steering token's shift each base token receives, and how good that match is.

The package knows tokenizers, not models: it needs numpy, rapidfuzz and tokenizers, but no torch. In the order of its
layers: `vocabularies` reads a tokenizer as bytes, `matching` matches the tokens of two vocabularies, `maps` builds the
map and keeps it on disk, `reports` shows how good a map is.
"""

from mapping_cache.maps.build import build_map, map_fingerprint, map_vocabularies
from mapping_cache.maps.disk_cache import (
    CorruptMapError,
    default_cache_dir,
    load_or_build,
    read_map,
    write_map,
)
from mapping_cache.maps.vocabulary_map import VocabularyMap
from mapping_cache.matching.match import MatchKind
from mapping_cache.matching.options import DEFAULT_MIN_SIMILARITY, Form, MapOptions, Method
from mapping_cache.reports.map_report import map_report
from mapping_cache.reports.picture import PlotsUnavailableError, write_picture
from mapping_cache.reports.tables import render_report
from mapping_cache.sample_texts import SAMPLE_TEXTS
from mapping_cache.vocabularies.canonical import CanonicalVocabulary, canonical_vocabulary
from mapping_cache.vocabularies.errors import UnsupportedTokenizerError

__all__ = [
    "DEFAULT_MIN_SIMILARITY",
    "SAMPLE_TEXTS",
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

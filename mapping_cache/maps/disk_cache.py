"""Vocabulary maps on disk: one file per pair, written atomically and checked on every read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from mapping_cache.maps.build import map_fingerprint, map_vocabularies
from mapping_cache.maps.vocabulary_map import VocabularyMap
from mapping_cache.matching.options import DEFAULT_MIN_SIMILARITY, Form, MapOptions, Method, Progress
from mapping_cache.vocabularies.canonical import CanonicalVocabulary, canonical_vocabulary

_MAGIC = b"TRIMTABMAP1\n"
_LENGTH = struct.Struct("<I")
_FIELDS = (("ids", "<i4"), ("nearest", "<i4"), ("similarity", "<f4"), ("kind", "u1"))

logger = logging.getLogger(__name__)


class CorruptMapError(ValueError):
    """A file that is not a vocabulary map, or is one that is incomplete or changed."""


def default_cache_dir() -> Path:
    """`$TRIMTAB_CACHE` if it is set, otherwise the platform's user cache directory for trimtab."""
    configured = os.environ.get("TRIMTAB_CACHE")
    return Path(configured) if configured else user_cache_path("trimtab")


def load_or_build(
    base: Any,
    steering: Any,
    *,
    method: Method = "pm-mined",
    form: Form = "bytes",
    min_similarity: float = DEFAULT_MIN_SIMILARITY,
    fallback: bool = False,
    base_size: int | None = None,
    steering_size: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> VocabularyMap:
    """The map that `build_map` gives, read from the cache if it is there, otherwise built and saved.

    `base` and `steering` are tokenizers or canonical vocabularies; sizes given beside a canonical vocabulary are
    ignored. `cache_dir` is `default_cache_dir()` by default. A damaged, foreign or stale file is rebuilt with a
    warning. A cache that cannot be written causes a warning; the map is returned all the same.

    Raises the same errors as `build_map`.
    """
    options = MapOptions(method, form, min_similarity, fallback)
    from_vocabulary = _vocabulary(base, base_size)
    to_vocabulary = _vocabulary(steering, steering_size)
    fingerprint = map_fingerprint(from_vocabulary, to_vocabulary, options)
    directory = default_cache_dir() if cache_dir is None else Path(cache_dir)
    path = directory / "maps" / f"{fingerprint[:40]}.map"
    saved = _read_valid(path, fingerprint, len(from_vocabulary), len(to_vocabulary))
    if saved is not None:
        return saved
    built = map_vocabularies(from_vocabulary, to_vocabulary, options, progress)
    try:
        write_map(path, built)
    except OSError as error:
        logger.warning("could not save the vocabulary map %s: %s", path, error)
    return built


def write_map(path: Path, vocabulary_map: VocabularyMap) -> None:
    """Writes a map to `path` atomically: other processes see the old file or the new one. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps(
        {
            "fingerprint": vocabulary_map.fingerprint,
            "base_size": len(vocabulary_map),
            "steering_size": vocabulary_map.steering_size,
        }
    ).encode()
    arrays = [getattr(vocabulary_map, name).astype(dtype, copy=False).tobytes() for name, dtype in _FIELDS]
    payload = b"".join([_MAGIC, _LENGTH.pack(len(header)), header, *arrays])
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
            file.write(hashlib.sha256(payload).digest())
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_map(path: Path) -> VocabularyMap:
    """Reads a saved map. Raises `CorruptMapError` if any byte has changed and `OSError` if the file cannot be read."""
    data = path.read_bytes()
    digest = hashlib.sha256().digest_size
    body = memoryview(data)[:-digest]
    if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + _LENGTH.size + digest:
        raise CorruptMapError("it is not a vocabulary map")
    if hashlib.sha256(body).digest() != data[-digest:]:
        raise CorruptMapError("its checksum is wrong")
    start = len(_MAGIC) + _LENGTH.size
    end = start + _LENGTH.unpack_from(data, len(_MAGIC))[0]
    try:
        header = json.loads(data[start:end])
        size = int(header["base_size"])
        arrays: dict[str, Any] = {}
        for name, dtype in _FIELDS:
            array = np.frombuffer(body, dtype, count=size, offset=end)
            arrays[name] = array.astype(np.dtype(dtype).newbyteorder("="), copy=True)
            end += array.nbytes
        if end != len(body):
            raise CorruptMapError("it is too long")
        return VocabularyMap(
            **arrays, steering_size=int(header["steering_size"]), fingerprint=str(header["fingerprint"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptMapError(str(error)) from error


def _read_valid(path: Path, fingerprint: str, base_size: int, steering_size: int) -> VocabularyMap | None:
    """The saved map, or `None`, with a warning unless there is no file, where it must be built."""
    try:
        saved = read_map(path)
    except FileNotFoundError:
        return None
    except (OSError, CorruptMapError) as error:
        logger.warning("rebuilding the vocabulary map %s: %s", path, error)
        return None
    if (saved.fingerprint, len(saved), saved.steering_size) != (fingerprint, base_size, steering_size):
        logger.warning("rebuilding the vocabulary map %s: it is another map or an older one", path)
        return None
    return saved


def _vocabulary(source: Any, size: int | None) -> CanonicalVocabulary:
    return source if isinstance(source, CanonicalVocabulary) else canonical_vocabulary(source, size)

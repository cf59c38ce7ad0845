"""One base that is served, with the threads that work for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from mapping_cache import CanonicalVocabulary, VocabularyMap, map_report
from server.engines.worker import EngineWorker
from server.errors import ApiError
from server.names import package_version
from server.tools.grammar_compiler import GrammarCompiler
from steering.adapters import Adapter

Result = TypeVar("Result")

_MOST_REPORTS = 64
"""The most map reports that a base keeps. Beyond that all are dropped, among them those of unloaded versions."""


class ServedBase:
    """A base: its engine, the thread that runs it, one that tokenizes and one that compiles grammars."""

    def __init__(self, worker: EngineWorker, *, max_prompt_bytes: int) -> None:
        self._max_prompt_bytes = max_prompt_bytes
        self.name = worker.name
        self.engine = worker.engine
        self.worker = worker
        # A thread, so that the event loop does not wait; one, because two must not use a fast tokenizer at once.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix=f"tokenize-{worker.name}")
        self.grammars = GrammarCompiler(worker.name, self.vocabulary, worker.engine.base.eos_token_ids)
        self._tokenizing_now = 0
        self._map_reports: dict[str, dict[str, Any]] = {}

    @property
    def tokenizer(self) -> Any:
        """The base's own tokenizer, as transformers has it; for functions that `off_loop` runs."""
        return self.engine.base.tokenizer

    @property
    def vocabulary(self) -> CanonicalVocabulary:
        """The base's tokens as bytes, and its special tokens."""
        return self.engine.base.vocabulary

    @property
    def fingerprint(self) -> str:
        """A digest of what runs: the package's version, the vocabulary, the device and the type of the weights."""
        base = self.engine.base
        parts = (
            package_version(),
            self.vocabulary.fingerprint,
            getattr(base, "device", ""),
            getattr(base, "dtype", ""),
        )
        return f"fp_{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"

    @property
    def vocab_size(self) -> int:
        """The number of tokens that the base scores; ids go from 0 to `vocab_size - 1`."""
        return self.engine.base.vocab_size

    @property
    def max_model_len(self) -> int:
        """The most tokens of a prompt and its completion together."""
        return self.engine.max_model_len

    def adapter_map(self, name: str) -> tuple[Adapter, VocabularyMap] | None:
        """The adapter of this name and its map; None where no such adapter is loaded.

        The engine's thread may replace or unload the adapter while this reads it, so it reads until both match.
        """
        while (adapter := self.engine.session.adapters().get(name)) is not None:
            try:
                vocabulary_map = self.engine.session.vocabulary_map(name)
            except KeyError:
                return None
            if self.engine.session.adapters().get(name) is adapter:
                return adapter, vocabulary_map
        return None

    def adapter_maps(self) -> Iterator[tuple[Adapter, VocabularyMap]]:
        """Every loaded adapter and its map."""
        for name in self.engine.session.adapters():
            pair = self.adapter_map(name)
            if pair is not None:
                yield pair

    def check_size(self, text: str) -> None:
        """Raises a 413 for a text of more than `max_prompt_bytes` bytes, before any time is spent on tokenizing it."""
        # A character is one to four bytes, so most texts need not be encoded to be measured.
        if 4 * len(text) > self._max_prompt_bytes < len(text.encode()):
            raise ApiError(
                413, f"A prompt's text is longer than the limit of {self._max_prompt_bytes} bytes."
            )

    async def off_loop(self, function: Callable[[], Result]) -> Result:
        """Runs `function`, which uses the tokenizer, in the tokenizing thread.

        Raises a 429 while twice as many functions wait or run as there are places for sequences. Requests that generate
        have a place in the queue, so they need no more than half of that; the tokenizer routes take no place, and use
        the rest.
        """
        if self._tokenizing_now >= 2 * self.worker.places.capacity:
            raise ApiError(429, f"The tokenizer of {self.name!r} has too much to do; try again later.")
        self._tokenizing_now += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._tokenizing, function)
        finally:
            self._tokenizing_now -= 1

    async def map_report(self, adapter: Adapter, vocabulary_map: VocabularyMap) -> dict[str, Any]:
        """The report of an adapter's map, kept for each version: making it occupies the tokenizer for a while."""
        steering = adapter.models[0]

        def make() -> dict[str, Any]:
            return map_report(
                vocabulary_map,
                self.tokenizer,
                steering.tokenizer,
                base_vocabulary=self.vocabulary,
                steering_vocabulary=steering.vocabulary,
            )

        report = self._map_reports.get(adapter.version)
        if report is None:
            report = self._map_reports[adapter.version] = await self.off_loop(make)
        if len(self._map_reports) > _MOST_REPORTS:
            self._map_reports.clear()
        return report

    async def close(self) -> None:
        """Ends the three threads and the process of the grammars; unfinished requests get a 503."""
        await self.worker.stop()
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
        self.grammars.close()

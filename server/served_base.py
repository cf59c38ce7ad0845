"""One base that is served, with the threads that work for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from server.engines.worker import EngineWorker
from server.errors import ApiError
from server.tools.grammars import GrammarCompiler

Result = TypeVar("Result")


class ServedBase:
    """One base: its engine, the thread that runs it and those that tokenize and compile grammars for it."""

    def __init__(self, worker: EngineWorker, *, max_prompt_bytes: int) -> None:
        self._max_prompt_bytes = max_prompt_bytes
        self.name = worker.name
        self.engine = worker.engine
        self.worker = worker
        # One thread: a fast tokenizer must not be used by two at once, and the event loop must not wait for it.
        self._tokenizing_now = 0
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix=f"tokenize-{worker.name}")
        self.grammars = GrammarCompiler(worker.name, worker.engine.base)
        self.map_reports: dict[str, dict[str, Any]] = {}

    def check_size(self, text: str) -> None:
        """Raises a 413 for a text that is too long to be tokenized at all."""
        # Most texts need not be encoded to know it: a character is one to four bytes.
        if 4 * len(text) > self._max_prompt_bytes < len(text.encode()):
            raise ApiError(
                413, f"A prompt's text is longer than the limit of {self._max_prompt_bytes} bytes."
            )

    async def off_loop(self, function: Callable[[], Result]) -> Result:
        """Runs `function`, which uses the tokenizer, off the event loop.

        Raises a 429 where more wait for it than requests with a place in the queue, and as many again, ever do.
        """
        if self._tokenizing_now >= 2 * self.worker.capacity:
            raise ApiError(429, f"The tokenizer of {self.name!r} has too much to do; try again later.")
        self._tokenizing_now += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._tokenizing, function)
        finally:
            self._tokenizing_now -= 1

    async def close(self) -> None:
        """Ends its threads."""
        await self.worker.stop()
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
        self.grammars.close()

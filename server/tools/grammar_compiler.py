"""Compiles the grammars of one base's requests, within limits and in fairness to all clients."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from mapping_cache import CanonicalVocabulary
from server.errors import ApiError, bad_request, echo, unavailable
from server.tools.fair_turns import FairTurns, TooManyWaitError
from server.tools.grammar_trial import GrammarTrial, TrialLimits, TrialUnavailableError
from steering.engine.constraint import Constraint, ConstraintCompiler, ConstraintError

_KEPT = 16
"""The compiled grammars that are kept; each takes at most the memory limit of a trial."""
_REFUSALS_KEPT = 256
_REFUSED_SECONDS = 60.0
"""How long a refused grammar is not tried again. A busy machine may have been the cause."""
_MOST_WAITING = 16
"""The most grammars of one client that wait to be compiled."""


class GrammarCompiler:
    """Compiles grammars in a thread of its own, so that neither the event loop nor the engine waits. Event loop only.

    Each grammar is tried in another process first. Clients take turns, one grammar each. A grammar that is compiled, or
    was refused not long ago, needs no turn.
    """

    def __init__(
        self,
        name: str,
        vocabulary: CanonicalVocabulary,
        eos_token_ids: Collection[int],
        limits: TrialLimits | None = None,
    ) -> None:
        self._name = name
        self._compiler = ConstraintCompiler(vocabulary, eos_token_ids)
        self._trial = GrammarTrial(vocabulary, eos_token_ids, limits)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"grammar-{name}")
        self._turns = FairTurns(_MOST_WAITING)
        self._compiled: OrderedDict[str, Constraint] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._compiling: dict[str, asyncio.Task[Constraint]] = {}

    async def compile(self, rules: str, field: str, client: str) -> Constraint:
        """The constraint for a grammar whose first rule is `start`.

        Raises `ApiError`: a 400 that names `field` for a grammar that cannot be compiled within the limits, 429 where
        too many grammars of `client` wait, 503 where no grammar can be compiled.
        """
        try:
            return await self._constraint(rules, client)
        except ConstraintError as error:
            raise bad_request(f"`{field}` cannot be served: {echo(error)}", field) from None
        except TooManyWaitError:
            raise ApiError(
                429, f"{_MOST_WAITING} grammars of yours wait to be compiled already; try again later."
            ) from None
        except TrialUnavailableError:
            raise unavailable(f"`{field}` cannot be compiled now; try again later.") from None

    def close(self) -> None:
        """Ends the process and the thread."""
        self._thread.submit(self._trial.close)
        self._thread.shutdown(wait=False)

    async def _constraint(self, rules: str, client: str) -> Constraint:
        if (kept := self._compiled.get(rules)) is not None:
            self._compiled.move_to_end(rules)
            return kept
        refused_at, reason = self._refused.get(_digest(rules), (float("-inf"), ""))
        if time.monotonic() - refused_at < _REFUSED_SECONDS:
            raise ConstraintError(reason)
        task = self._compiling.get(rules)
        if task is None:
            task = self._compiling[rules] = asyncio.create_task(self._in_turn(rules, client))
            task.add_done_callback(partial(self._done, rules))
        # Shielded, because a turn lasts until the thread is done, and others may wait for the same grammar.
        return await asyncio.shield(task)

    async def _in_turn(self, rules: str, client: str) -> Constraint:
        async with self._turns.turn(client):
            try:
                constraint = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._try_and_compile, rules
                )
            except ConstraintError as error:
                self._refused[_digest(rules)] = (time.monotonic(), str(error))
                if len(self._refused) > _REFUSALS_KEPT:
                    self._refused.popitem(last=False)
                raise
        self._compiled[rules] = constraint
        if len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        return constraint

    def _done(self, rules: str, task: asyncio.Task[Constraint]) -> None:
        del self._compiling[rules]
        if not task.cancelled():
            # Read, so that asyncio reports no error that nobody waited for.
            task.exception()

    def _try_and_compile(self, rules: str) -> Constraint:
        self._trial.try_out(rules)
        return self._compiler.compile(rules)


def _digest(rules: str) -> bytes:
    return hashlib.sha256(rules.encode("utf-8", "surrogatepass")).digest()

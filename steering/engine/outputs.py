"""The outputs of a step, and an engine's counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from steering.session.logprobs import TokenLogprob

FinishReason = Literal["stop", "length", "abort", "error"]
Cause = Literal["scores", "constraint", "fault"]
"""The cause of an error: scores that are not finite, a grammar that cannot be followed, a fault in the row's part."""


@dataclass(frozen=True, slots=True)
class StepOutput:
    """One step's addition to one request.

    `logprobs` is as long as `token_ids` when asked for, else empty. `prompt_logprobs` comes once, with the first
    output of a scoring request; its first entry is None, because nothing precedes the first token. `error` and `cause`
    are given with the finish reason "error". `changed`: tokens at which the steered argmax differs from the base's.
    `kl`: KL(steered || base) in nats; None where nothing steers or it was not measured. `cached_tokens`: how many of
    the prompt's tokens the base's prefix cache had.
    """

    request_id: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    finish_reason: FinishReason | None = None
    error: str | None = None
    cause: Cause | None = None
    changed: int = 0
    kl: float | None = None
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Gauges now and counters since start, for one base's engine."""

    running: int
    waiting: int
    kv_pages_used: int
    kv_pages_total: int
    prefix_cache_queries: int
    prefix_cache_hits: int
    preemptions: int
    history_reencoded_tokens: int

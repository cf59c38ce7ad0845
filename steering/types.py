"""The nouns that every part of the engine shares; all frozen.

Token ids are the *base* tokenizer's unless a name says otherwise. Log probabilities are natural logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from steering.engine.constraint import Constraint

FinishReason = Literal["stop", "length", "abort", "error"]
BridgeName = Literal["map", "rescore"]

MAX_ALPHA = 100.0
"""The strongest shift that can be asked for, either way."""


class InvalidRequestError(ValueError):
    """A request that cannot be served as it stands; `param` names the field at fault."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class ModelLoadError(RuntimeError):
    """A base or steering model that cannot be loaded or cannot run on the engine; the message says why."""


class AdapterLoadError(RuntimeError):
    """An adapter folder that cannot be served; the message names the file or field at fault."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one sequence's next tokens are drawn.

    `logprobs`: None for none, k >= 0 for the chosen token's and the k best ones'. `prompt_logprobs`: the same for
    every prompt token (scoring). `top_k` 0 means all tokens. `temperature` 0 is greedy.
    Reported log probabilities are the steered distribution's, before penalties, bias and temperature.
    """

    max_tokens: int = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    @property
    def penalises(self) -> bool:
        """True when the tokens generated so far change the next one's scores."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)


@dataclass(frozen=True, slots=True)
class SteeringSpec:
    """One adapter that a request asks for; None means the adapter's own default.

    `alpha` 0 is the base exactly. `top_k`: shift only the base's k likeliest tokens (proxy-tuning on black-box
    bases, Liu et al. 2024, section 6).
    """

    adapter: str
    alpha: float | None = None
    top_k: int | None = None
    bridge: BridgeName | None = None


@dataclass(frozen=True, slots=True)
class ResolvedSteering:
    """What steers a request once the adapter's defaults are filled in; its version is pinned at admission."""

    adapter: str
    version: str
    alpha: float
    bridge: BridgeName
    top_k: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to generate: tokenized prompt, sampling, steering, and the grammar that it must follow, if any."""

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    steering: tuple[SteeringSpec, ...] = ()
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One position's log probabilities: steered, the base's, and the shift that lies between them before renormalising.

    `top`: (token id, steered logprob), best first. `rank` 1 is the likeliest token.
    """

    token_id: int
    logprob: float
    rank: int
    base_logprob: float
    shift: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What one step gave one request.

    `logprobs` is as long as `token_ids` when asked for, else empty. `prompt_logprobs` comes once, with the first
    output of a scoring request; its first entry is None (nothing precedes it). `param`: with an error, the field of
    the request that is to blame, None where it is the engine. `changed`: tokens at which the steered argmax differs
    from the base's; `kl`: KL(steered || base) in nats, None where nothing steers or it was not measured.
    """

    request_id: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    finish_reason: FinishReason | None = None
    error: str | None = None
    param: str | None = None
    changed: int = 0
    kl: float | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since start and gauges now, for one base's engine."""

    running: int
    waiting: int
    kv_pages_used: int
    kv_pages_total: int
    prefix_cache_queries: int
    prefix_cache_hits: int
    preemptions: int
    history_reencoded_tokens: int

"""One sequence to generate: prompt, sampling, steering, and the grammar that it must follow."""

from __future__ import annotations

from dataclasses import dataclass, field

from steering.engine.constraint import Constraint
from steering.specs import SteeringSpec


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next tokens of one sequence are drawn.

    `temperature` 0 is greedy. `top_k` 0 means all tokens. `logprobs`: None for none, k >= 0 for the chosen token and
    the k best ones. `prompt_logprobs`: the same for every prompt token (scoring). Log probabilities are the steered
    distribution's, before penalties, bias and temperature. `allowed_token_ids`: the only tokens that may be drawn;
    empty for all. `bad_sequences`: token sequences that may not be completed.
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
    allowed_token_ids: tuple[int, ...] = ()
    bad_sequences: tuple[tuple[int, ...], ...] = ()

    @property
    def penalises(self) -> bool:
        """True when the tokens generated so far change the next token's scores."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to generate. Token ids are the base tokenizer's."""

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    steering: tuple[SteeringSpec, ...] = ()
    constraint: Constraint | None = None

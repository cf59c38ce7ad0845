"""The sampling parameters of a request, with defaults for the fields that it leaves out."""

from __future__ import annotations

from collections.abc import Iterable

from server.errors import bad_request, echo
from server.protocol.generation import GenerationFields
from server.served_base import ServedBase
from steering.engine.request import SamplingParams

_GREEDY_BELOW = 1e-5
"""A lower temperature is taken as 0: the scores, divided by it, would overflow."""


_LEAST_TOP_P = 1e-30
"""Keeps only the likeliest token, as a `top_p` of 0 does in llama.cpp."""


def sampling_params(
    base: ServedBase,
    body: GenerationFields,
    *,
    max_tokens: int,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
    bad_sequences: tuple[tuple[int, ...], ...] = (),
) -> SamplingParams:
    """The sampling parameters of `body`; raises a 400 for `min_tokens` or token ids that are out of range."""
    if (body.min_tokens or 0) > max_tokens:
        raise bad_request(f"`min_tokens` may not exceed the {max_tokens} of `max_tokens`.", "min_tokens")
    check_ids(base, body.stop_token_ids or (), "stop_token_ids")
    check_ids(base, body.logit_bias or (), "logit_bias")
    check_ids(base, body.allowed_token_ids or (), "allowed_token_ids")
    temperature = _or(body.temperature, 1.0)
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=body.min_tokens or 0,
        temperature=temperature if temperature >= _GREEDY_BELOW else 0.0,
        top_p=max(_or(body.top_p, 1.0), _LEAST_TOP_P),
        top_k=max(0, body.top_k or 0),
        min_p=_or(body.min_p, 0.0),
        seed=None if body.seed == -1 else body.seed,
        stop_token_ids=frozenset(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        presence_penalty=_or(body.presence_penalty, 0.0),
        frequency_penalty=_or(body.frequency_penalty, 0.0),
        repetition_penalty=_or(body.repetition_penalty, 1.0),
        logit_bias=tuple(sorted((body.logit_bias or {}).items())),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        allowed_token_ids=tuple(sorted(set(body.allowed_token_ids or ()))),
        bad_sequences=bad_sequences,
    )


def check_ids(base: ServedBase, ids: Iterable[int], field: str) -> None:
    """Raises a 400 for a token id that the base does not have."""
    size = base.vocab_size
    wrong = next((token_id for token_id in ids if not 0 <= token_id < size), None)
    if wrong is not None:
        raise bad_request(f"`{field}` has the token id {echo(wrong)}; ids go from 0 to {size - 1}.", field)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value

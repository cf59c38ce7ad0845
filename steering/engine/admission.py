"""The engine's own checks of a request, behind those at the HTTP edge."""

from __future__ import annotations

import math

from steering.engine.request import Request, SamplingParams
from steering.errors import InvalidRequestError

# Dividing by a smaller temperature overflows float32. Sampling is greedy long before.
_LEAST_TEMPERATURE = 1e-30


def check_request(request: Request, vocab_size: int, max_model_len: int) -> None:
    """Check prompt and sampling. Raises InvalidRequestError naming the field at fault and its limit."""
    length = len(request.prompt_ids)
    if length == 0:
        raise InvalidRequestError("prompt: it has no tokens", "prompt")
    needs_room = request.sampling.max_tokens > 0
    if length + needs_room > max_model_len:
        raise InvalidRequestError(
            f"prompt: it has {length} tokens; this model takes at most {max_model_len - needs_room}"
            + (" and generates into the rest" if needs_room else ""),
            "prompt",
        )
    for token in request.prompt_ids:
        if not 0 <= token < vocab_size:
            raise InvalidRequestError(
                f"prompt: token id {token} is not between 0 and {vocab_size - 1}", "prompt"
            )
    if request.constraint is not None and request.sampling.allowed_token_ids:
        raise InvalidRequestError("allowed_token_ids: not together with a grammar", "allowed_token_ids")
    _check_sampling(request.sampling, vocab_size)


def _check_sampling(params: SamplingParams, vocab_size: int) -> None:
    scoring = params.prompt_logprobs is not None
    limits = {
        "max_tokens": params.max_tokens >= (0 if scoring else 1),
        "min_tokens": params.min_tokens >= 0,
        "temperature": params.temperature == 0 or params.temperature >= _LEAST_TEMPERATURE,
        "top_p": 0 < params.top_p <= 1,
        "top_k": params.top_k >= 0,
        "min_p": 0 <= params.min_p <= 1,
        "presence_penalty": math.isfinite(params.presence_penalty),
        "frequency_penalty": math.isfinite(params.frequency_penalty),
        "repetition_penalty": params.repetition_penalty > 0,
        "logprobs": params.logprobs is None or params.logprobs >= 0,
        "prompt_logprobs": params.prompt_logprobs is None or params.prompt_logprobs >= 0,
    }
    for name, good in limits.items():
        value = getattr(params, name)
        if not good or (isinstance(value, float) and not math.isfinite(value)):
            raise InvalidRequestError(f"{name}: {value} is out of range", name)
    for token, bias in params.logit_bias:
        if not 0 <= token < vocab_size:
            raise InvalidRequestError(
                f"logit_bias: token id {token} is not between 0 and {vocab_size - 1}", "logit_bias"
            )
        if not math.isfinite(bias):
            raise InvalidRequestError(
                f"logit_bias: {bias} for token {token} is not a finite number", "logit_bias"
            )
    if params.min_tokens and len(params.stop_token_ids) >= vocab_size:
        raise InvalidRequestError("stop_token_ids: with min_tokens they leave no token", "stop_token_ids")
    for name in ("stop_token_ids", "allowed_token_ids"):
        for token in getattr(params, name):
            if not 0 <= token < vocab_size:
                raise InvalidRequestError(
                    f"{name}: token id {token} is not between 0 and {vocab_size - 1}", name
                )
    if not all(params.bad_sequences):
        raise InvalidRequestError("bad_sequences: one has no tokens", "bad_sequences")

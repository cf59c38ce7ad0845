"""The field `logprobs` of each route, from the engine's logprobs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mapping_cache import CanonicalVocabulary
from server.protocol.chat import ChatLogprobs, TokenEntry, TopLogprob
from server.protocol.completions import CompletionLogprobs, PromptEntry, PromptLogprob
from server.protocol.steering import SteeringDetail
from server.replies.sequence_text import PlacedToken
from server.replies.token_text import token_bytes, token_text
from steering.session.logprobs import TokenLogprob

_LEAST_LOGPROB = -9999.0
"""The customary stand-in for the logprob of an impossible token, since JSON has no infinity."""


def completion_logprobs(
    vocabulary: CanonicalVocabulary,
    tokens: Sequence[PlacedToken],
    *,
    top: int,
    details: bool,
    as_ids: bool = False,
) -> CompletionLogprobs:
    """The parallel lists of the completions route, with the `top` likeliest tokens of each place; with `details`, also
    each token's steering. `as_ids`: tokens are named by their ids."""
    entries = [token.logprob for token in tokens]
    return CompletionLogprobs(
        tokens=[_name(vocabulary, token.token_id, as_ids) for token in tokens],
        token_logprobs=[None if entry is None else _finite(entry.logprob) for entry in entries],
        top_logprobs=[None if entry is None else _top(vocabulary, entry, top, as_ids) for entry in entries],
        text_offset=[token.offset for token in tokens],
        steering_details=[None if entry is None else _detail(entry) for entry in entries]
        if details
        else None,
    )


def chat_logprobs(
    vocabulary: CanonicalVocabulary,
    tokens: Sequence[PlacedToken],
    *,
    top: int,
    details: bool,
    as_ids: bool = False,
) -> ChatLogprobs:
    """The entries of the chat route, each with the `top` likeliest tokens; with `details`, also its steering.
    `as_ids`: tokens are named by their ids."""
    content: list[TokenEntry] = []
    for token in tokens:
        entry = token.logprob
        if entry is None:
            continue
        chosen = _top_logprob(vocabulary, token.token_id, entry.logprob, as_ids)
        content.append(
            TokenEntry(
                token=chosen.token,
                logprob=chosen.logprob,
                bytes=chosen.bytes,
                top_logprobs=[_top_logprob(vocabulary, *likely, as_ids) for likely in entry.top[:top]],
                steering_details=_detail(entry) if details else None,
            )
        )
    return ChatLogprobs(content=content)


def _top(vocabulary: CanonicalVocabulary, entry: TokenLogprob, top: int, as_ids: bool) -> dict[str, float]:
    """The likeliest tokens and the chosen one, by text; where two ids have the same text, the likelier counts."""
    table: dict[str, float] = {}
    for token_id, logprob in (*entry.top[:top], (entry.token_id, entry.logprob)):
        table.setdefault(_name(vocabulary, token_id, as_ids), _finite(logprob))
    return table


def _top_logprob(vocabulary: CanonicalVocabulary, token_id: int, logprob: float, as_ids: bool) -> TopLogprob:
    content = token_bytes(vocabulary, token_id)
    return TopLogprob(
        token=_name(vocabulary, token_id, as_ids),
        logprob=_finite(logprob),
        bytes=None if content is None else list(content),
    )


def prompt_entries(
    vocabulary: CanonicalVocabulary, entries: Sequence[TokenLogprob | None] | None, top: int | None
) -> list[PromptEntry | None] | None:
    """The field `prompt_logprobs`: each token of a prompt with the `top` likeliest ones, by id; None where not asked
    for."""
    if entries is None or top is None:
        return None
    return [None if entry is None else _prompt_entry(vocabulary, entry, top) for entry in entries]


def _prompt_entry(vocabulary: CanonicalVocabulary, entry: TokenLogprob, top: int) -> PromptEntry:
    ranked = [(token, logprob, place) for place, (token, logprob) in enumerate(entry.top[:top], 1)]
    found: PromptEntry = {}
    for token, logprob, rank in ((entry.token_id, entry.logprob, entry.rank), *ranked):
        found.setdefault(
            str(token),
            PromptLogprob(logprob=_finite(logprob), rank=rank, decoded_token=token_text(vocabulary, token)),
        )
    return found


def _name(vocabulary: CanonicalVocabulary, token_id: int, as_ids: bool) -> str:
    return f"token_id:{token_id}" if as_ids else token_text(vocabulary, token_id)


def _detail(entry: TokenLogprob) -> SteeringDetail:
    return SteeringDetail(
        base_logprob=_finite(entry.base_logprob),
        shift=_finite(entry.shift),
        steered_logprob=_finite(entry.logprob),
    )


def _finite(value: float) -> float:
    """`value`, or a large finite number of the same sign in place of an infinity; NaN becomes `_LEAST_LOGPROB`."""
    if math.isfinite(value):
        return value
    return -_LEAST_LOGPROB if value > 0 else _LEAST_LOGPROB

"""From what was generated to the wire's objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mapping_cache import CanonicalVocabulary
from server.protocol.chat import ChatLogprobs, TokenEntry, TopLogprob
from server.protocol.common import SteeredBy, SteeringDetail, Usage
from server.protocol.completions import CompletionLogprobs
from server.replies.tokens import PlacedToken, finite, token_bytes, token_text
from steering.types import ResolvedSteering, TokenLogprob

STEERING_HEADER = "x-trimtab-steering"


def steering_header(steering: Iterable[ResolvedSteering]) -> dict[str, str]:
    """`ADAPTER@VERSION*ALPHA, ...`, or `none`."""
    return {STEERING_HEADER: ", ".join(f"{s.adapter}@{s.version}*{s.alpha:g}" for s in steering) or "none"}


def steered_by(steering: Sequence[ResolvedSteering]) -> list[SteeredBy] | None:
    """The body's field `steering`; None when nothing steers."""
    return [
        SteeredBy(adapter=s.adapter, version=s.version, alpha=s.alpha, bridge=s.bridge, top_k=s.top_k)
        for s in steering
    ] or None


def usage(prompt_tokens: int, completion_tokens: int) -> Usage:
    """The counts and their sum."""
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )


def _detail(entry: TokenLogprob) -> SteeringDetail:
    return SteeringDetail(
        base_logprob=finite(entry.base_logprob),
        shift=finite(entry.shift),
        steered_logprob=finite(entry.logprob),
    )


def _top(vocabulary: CanonicalVocabulary, entry: TokenLogprob) -> dict[str, float]:
    """The likeliest tokens and the chosen one; of two ids that read alike, the likelier."""
    table: dict[str, float] = {}
    for token_id, logprob in (*entry.top, (entry.token_id, entry.logprob)):
        table.setdefault(token_text(vocabulary, token_id), finite(logprob))
    return table


def completion_logprobs(
    vocabulary: CanonicalVocabulary, tokens: Sequence[PlacedToken], *, details: bool
) -> CompletionLogprobs:
    """The parallel lists of the completions route."""
    entries = [token.logprob for token in tokens]
    return CompletionLogprobs(
        tokens=[token_text(vocabulary, token.token_id) for token in tokens],
        token_logprobs=[None if entry is None else finite(entry.logprob) for entry in entries],
        top_logprobs=[None if entry is None else _top(vocabulary, entry) for entry in entries],
        text_offset=[token.offset for token in tokens],
        steering_details=[None if entry is None else _detail(entry) for entry in entries]
        if details
        else None,
    )


def chat_logprobs(
    vocabulary: CanonicalVocabulary, tokens: Sequence[PlacedToken], *, top: int, details: bool
) -> ChatLogprobs:
    """The entries of the chat route; `top` likeliest tokens each."""
    content: list[TokenEntry] = []
    for token in tokens:
        entry = token.logprob
        if entry is None:
            continue
        alternatives = [_alternative(vocabulary, token_id, logprob) for token_id, logprob in entry.top[:top]]
        chosen = _alternative(vocabulary, token.token_id, entry.logprob)
        content.append(
            TokenEntry(
                token=chosen.token,
                logprob=chosen.logprob,
                bytes=chosen.bytes,
                top_logprobs=alternatives,
                steering_details=_detail(entry) if details else None,
            )
        )
    return ChatLogprobs(content=content)


def _alternative(vocabulary: CanonicalVocabulary, token_id: int, logprob: float) -> TopLogprob:
    content = token_bytes(vocabulary, token_id)
    return TopLogprob(
        token=token_text(vocabulary, token_id),
        logprob=finite(logprob),
        bytes=None if content is None else list(content),
    )

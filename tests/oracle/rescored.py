"""The bridge `rescore`: the best candidates get the sum of the scores of the text that they add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch

from tests.oracle.bridged import Pair
from tests.oracle.text import complete_text, ends_inside_character, last_bytes

BEST_STEERED = 16
BEST_BASE = 4
PLAUSIBLE = 1e-4


def rescored_shift(pair: Pair, ids: Sequence[int]) -> torch.Tensor:
    """`[V_base]`: the shift after `ids` by the bridge `rescore`."""
    adapter, base = pair.adapter, pair.base.logprobs(ids)
    encoded = pair.encode(ids)
    firsts = _first_tokens(pair)
    ratio = adapter.natural(encoded)[-1] if encoded else torch.zeros(pair.mapped.steering_size)
    mean = _mean(pair, base, ratio, firsts)
    shift = torch.tensor([float(ratio[tokens[0]]) if tokens else mean for tokens in firsts])
    added: dict[int, list[int]] = {}
    for candidate in _candidates(base, base + adapter.alpha * shift):
        if not _adds_text(pair, ids, candidate):
            continue
        longer = pair.encode([*ids, candidate])
        common = 0
        while common < min(len(encoded), len(longer)) and encoded[common] == longer[common]:
            common += 1
        if common == len(encoded):
            added[candidate] = longer[common:]
            continue
        again = adapter.sum_from(longer, common) - adapter.sum_from(encoded, common)
        shift[candidate] = mean + again
    zero = partial(_zero, pair, base, encoded, firsts, added)
    for candidate, tokens in added.items():
        total = 0.0 if tokens else mean
        for place in range(len(tokens)):
            after = adapter.natural([*encoded, *tokens[:place]])[-1] if place else ratio
            total += float(after[tokens[place]])
            if place:
                total -= zero(tokens[:place])
        total -= zero(tokens)
        shift[candidate] = total
    return shift


def _mean(pair: Pair, base: torch.Tensor, ratio: torch.Tensor, firsts: list[list[int]]) -> float:
    """The mean score, under the base, of the base's likeliest tokens that have a first steering token."""
    likely = base.topk(min(BEST_STEERED, len(base))).indices.tolist()
    known = [token for token in likely if firsts[token]]
    if pair.adapter.unmatched != "neutral" or not known:
        return 0.0
    scores = ratio[[firsts[token][0] for token in known]]
    return float(base[known].softmax(-1) @ scores)


def _candidates(base: torch.Tensor, steered: torch.Tensor) -> list[int]:
    """The plausible ones among the best steered tokens and among the base's best, in order of id."""
    best = set()
    for scores, count in ((steered, BEST_STEERED), (base, BEST_BASE)):
        probs = scores.softmax(-1)
        best |= {t for t in probs.topk(min(count, len(base))).indices.tolist() if probs[t] >= PLAUSIBLE}
    return sorted(best)


def _first_tokens(pair: Pair) -> list[list[int]]:
    """Each base token's steering tokens after other text; where that is not known, its match in the map, if any."""
    tokenizer = pair.adapter.tokenizer
    encode = partial(tokenizer.encode, add_special_tokens=False, split_special_tokens=True)
    found = []
    for token, counterpart in zip(pair.base.vocabulary.tokens, pair.mapped.ids.tolist(), strict=True):
        tokens = [counterpart] if counterpart >= 0 else []
        text = (token or b"").decode("utf-8", errors="ignore")
        if text and text.encode() == token:
            for before in ("x\n", "x:", "x"):
                alone, whole = encode(before), encode(before + text)
                if whole[: len(alone)] == alone:
                    tokens = whole[len(alone) :] or tokens
                    tokens = [] if tokenizer.unk_token_id in tokens else tokens
                    break
        found.append(tokens)
    return found


def _zero(
    pair: Pair,
    base: torch.Tensor,
    encoded: Sequence[int],
    firsts: list[list[int]],
    added: dict[int, list[int]],
    beginning: list[int],
) -> float:
    """The score that a token after `beginning` is compared with: the base's other continuations, weighted by the base.

    0 where no candidate continues after `beginning`.
    """
    size = len(beginning)
    going = {c: text[size] for c, text in added.items() if text[:size] == beginning and len(text) > size}
    if not going or not beginning:
        return 0.0
    after = pair.adapter.natural([*encoded, *beginning])[-1]
    weights = base[list(going)].exp().double().clamp(min=1e-30).tolist()
    powers = (pair.adapter.alpha * after[list(going.values())].double()).tolist()
    ends = [c for c, text in added.items() if text == beginning]
    if not ends and size == 1 and any(firsts[c][:1] == beginning for c in going):
        ends = [c for c, text in enumerate(firsts) if text == beginning][-1:]
    for end in ends:
        weights.append(max(float(base[end].exp()), 1e-30))
        powers.append(0.0)
    total = sum(w * math.exp(power) for w, power in zip(weights, powers, strict=True))
    return math.log(total / sum(weights)) / pair.adapter.alpha


def _adds_text(pair: Pair, ids: Sequence[int], candidate: int) -> bool:
    """False for special tokens, and for tokens that complete no character or leave one incomplete."""
    vocabulary = pair.base.vocabulary
    after = last_bytes(vocabulary, [*ids, candidate])
    if vocabulary.tokens[candidate] is None or ends_inside_character(after):
        return False
    return complete_text(after) != complete_text(last_bytes(vocabulary, ids))

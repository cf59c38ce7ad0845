"""The sampler against a plain loop over one row at a time."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from steering.engine.request import SamplingParams
from steering.engine.sampler import SamplingRow, adjust, sample

WIDTH = 12


def naive_scores(logprobs: list[float], row: SamplingRow) -> list[float]:
    params, scores = row.params, list(logprobs)
    counts = Counter(row.generated)
    for token in {*row.prompt, *row.generated}:
        factor = params.repetition_penalty
        scores[token] = scores[token] / factor if scores[token] > 0 else scores[token] * factor
    for token, count in counts.items():
        scores[token] -= params.presence_penalty + params.frequency_penalty * count
    for token, bias in params.logit_bias:
        scores[token] += bias
    allowed = set(params.allowed_token_ids) or set(range(WIDTH))
    # Forbidden tokens are drawn where nothing else is allowed.
    forbidden = set(row.forbidden) if allowed - set(row.forbidden) else set()
    for token in range(WIDTH):
        if token not in allowed - forbidden:
            scores[token] = float("-inf")
    return scores


def naive_kept(scores: list[float], params: SamplingParams) -> dict[int, float]:
    """The tokens that may be drawn and their probabilities: top-k and min-p, then top-p of what they keep."""
    probs = torch.tensor(scores, dtype=torch.float64).div(params.temperature).softmax(0).tolist()
    order = sorted(range(len(probs)), key=lambda token: -probs[token])
    order = [
        token for token in order[: params.top_k or None] if probs[token] >= params.min_p * probs[order[0]]
    ]
    share = sum(probs[token] for token in order)
    kept: dict[int, float] = {}
    for token in order:
        if not kept or params.top_p >= 1 or sum(kept.values()) < params.top_p * share:
            kept[token] = probs[token]
    whole = sum(kept.values())
    return {token: prob / whole for token, prob in kept.items()}


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_k=st.integers(0, WIDTH + 3),
    top_p=st.sampled_from([0.05, 0.33, 0.71, 0.97, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.23, 1.0]),
    presence_penalty=st.sampled_from([0.0, 1.3, -0.7]),
    frequency_penalty=st.sampled_from([0.0, 0.45, -0.6]),
    repetition_penalty=st.sampled_from([1.0, 1.4, 0.8]),
    logit_bias=st.lists(
        st.tuples(st.integers(0, WIDTH - 1), st.sampled_from([-100.0, -1.2, 2.1, 100.0])),
        max_size=3,
        unique_by=lambda pair: pair[0],
    ).map(tuple),
    allowed_token_ids=st.sampled_from([(), (), (0, 3, 7, 9), (7,), (0, 7)]),
)
TOKENS = st.lists(st.integers(0, WIDTH - 1), max_size=6)
ROWS = st.builds(
    SamplingRow,
    params=PARAMS,
    prompt=TOKENS.filter(bool),
    generated=TOKENS,
    uniform=st.floats(0, 1, exclude_max=True),
    forbidden=st.sampled_from([(), (3,), (0, 7)]),
)


@given(st.lists(ROWS, min_size=1, max_size=5), st.integers(0, 2**16))
@settings(max_examples=150)
def test_rows_get_what_a_plain_loop_gives(rows: list[SamplingRow], seed: int) -> None:
    logits = torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(seed)) * 2
    logprobs = logits.log_softmax(-1)
    untouched = logprobs.clone()
    drawn = sample(logprobs, rows).tolist()
    assert torch.equal(logprobs, untouched)
    adjusted = adjust(logprobs, rows)
    for place, row in enumerate(rows):
        scores = naive_scores(logprobs[place].tolist(), row)
        assert adjusted[place].tolist() == pytest.approx(scores, abs=1e-4)
        if row.params.temperature == 0:
            assert scores[drawn[place]] == pytest.approx(max(scores), abs=1e-4)
            continue
        kept = naive_kept(scores, row.params)
        assert drawn[place] in kept
        # The inverse of the cumulative sum: `uniform` lies within the drawn token's stretch. Where tokens are cut off
        # the likeliest comes first, else the order is the vocabulary's.
        cuts = row.params.top_k or row.params.top_p < 1 or row.params.min_p
        own = kept[drawn[place]]
        before = sum(prob for token, prob in kept.items() if (prob > own if cuts else token < drawn[place]))
        assert before - 1e-4 <= row.uniform <= before + kept[drawn[place]] + 1e-4


@given(
    seed=st.integers(0, 2**16),
    width=st.sampled_from([8, 700, 3000]),
    top_k=st.sampled_from([1, 5, 20, 600, 2000]),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 0.99]),
    penalty=st.sampled_from([0.7, 1.3]),
    scale=st.sampled_from([0.3, 2.0]),
)
@settings(max_examples=60)
def test_penalties_top_k_and_top_p_are_those_of_transformers(
    seed: int, width: int, top_k: int, top_p: float, penalty: float, scale: float
) -> None:
    """Every uniform number's draw is a token that transformers keeps, and each of those is drawn by some number."""
    logits = torch.randn(1, width, generator=torch.Generator().manual_seed(seed)) * scale + 3
    seen = torch.randint(0, width, (1, 5), generator=torch.Generator().manual_seed(seed))
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(seen, logits)
    theirs = TopPLogitsWarper(top_p)(seen, TopKLogitsWarper(top_k)(seen, theirs))
    kept = torch.isfinite(theirs[0]).nonzero().flatten().tolist()
    params = SamplingParams(top_k=top_k, top_p=top_p, repetition_penalty=penalty)
    # The middle of each kept token's stretch, in the order of their probabilities.
    shares = theirs[0].double().softmax(0)[kept].sort(descending=True).values
    middles = (shares.cumsum(0) - shares / 2).tolist()
    rows = [SamplingRow(params, seen[0].tolist(), (), uniform) for uniform in middles]
    drawn = sample(logits.expand(len(rows), -1), rows).tolist()
    assert set(drawn) == set(kept)


def test_a_repetition_penalty_lowers_a_likely_token() -> None:
    """In logits; on log probabilities, which are below 0, it would hardly touch the likeliest token, or raise it."""
    logits = torch.tensor([[8.0, 1.0, 0.5]])
    row = SamplingRow(SamplingParams(repetition_penalty=1.3), (0,), (), 0.5)
    before, after = logits.softmax(-1)[0, 0], adjust(logits, [row]).softmax(-1)[0, 0]
    assert after == pytest.approx(torch.tensor([8 / 1.3, 1.0, 0.5]).softmax(0)[0])
    assert after < before


@given(st.lists(ROWS, min_size=1, max_size=5))
@settings(max_examples=50)
def test_a_row_does_not_see_its_neighbours(rows: list[SamplingRow]) -> None:
    logprobs = torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    together = sample(logprobs, rows).tolist()
    alone = [sample(logprobs[i : i + 1], [row]).tolist()[0] for i, row in enumerate(rows)]
    assert together == alone


def test_frequencies_follow_the_probabilities() -> None:
    logprobs = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, 4)
    rows = [SamplingRow(SamplingParams(), (), (), (i + 0.5) / 4000) for i in range(4000)]
    counts = torch.bincount(sample(logprobs, rows), minlength=4) / 4000
    assert counts.tolist() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=1e-3)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1.0 - 2**-53])
def test_impossible_tokens_are_never_drawn(uniform: float) -> None:
    logprobs = torch.tensor([[float("-inf"), -1e-6, float("-inf"), -14.0]])
    row = SamplingRow(SamplingParams(top_k=3), (), (), uniform)
    assert sample(logprobs, [row]).item() in (1, 3)
    forbidden = SamplingRow(SamplingParams(), (), (), uniform, forbidden=(1,))
    assert sample(logprobs, [forbidden]).item() == 3


def test_a_wide_vocabulary_keeps_its_tail() -> None:
    """Rounding in a long cumulative sum must neither cut off the tail nor run past it."""
    logprobs = torch.zeros(2, 150_000).log_softmax(-1)
    last = SamplingRow(SamplingParams(top_p=1.0), (), (), 1.0 - 2**-53)
    first = SamplingRow(SamplingParams(top_p=1.0), (), (), 0.0)
    high, low = sample(logprobs, [last, first]).tolist()
    assert 0 <= low < 150_000
    assert 0 <= high < 150_000
    assert high != low

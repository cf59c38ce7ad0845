"""Fusion, divergence and log probabilities against their definitions."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steering.adapters.shift import Shift
from steering.bridges.map import carry
from steering.crossing.map_tensors import MapTensors
from steering.session.fusion import add_shift, best, divergence

seeds = st.integers(0, 2**32 - 1)


def scores(seed: int, rows: int, width: int, scale: float = 3.0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * scale


def some(seed: int, width: int, share: float) -> Tensor:
    """Some of the columns, ascending."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(width, generator=generator) < share).nonzero().squeeze(1)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 20), st.integers(2, 200), st.floats(0, 1), st.floats(-30, 30))
def test_divergence_is_the_definition(seed: int, rows: int, width: int, share: float, offset: float) -> None:
    base, columns = scores(seed, rows, width), some(seed, width, share)
    steered = base.clone()
    steered[:, columns] += scores(seed + 1, rows, len(columns), 2.0)
    ours, theirs = steered.log_softmax(-1), base.log_softmax(-1)
    expected = (ours.exp() * (ours - theirs)).sum(-1)
    for found in (
        divergence(steered, base),
        # Scores are free up to a constant of the row.
        divergence(steered + offset, base),
    ):
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(2, 60), st.booleans(), st.data())
def test_a_shift_lands_where_it_should(
    seed: int, rows: int, width: int, partial: bool, data: st.DataObject
) -> None:
    base = scores(seed, rows, width)
    columns = some(seed, width, 0.5) if partial else None
    values = scores(seed + 1, rows, width if columns is None else len(columns))
    alphas = torch.tensor(data.draw(st.lists(st.floats(-2, 2, width=32), min_size=rows, max_size=rows)))
    top_ks = data.draw(st.lists(st.none() | st.integers(1, width + 2), min_size=rows, max_size=rows))
    steered = base.clone()
    add_shift(steered, base, Shift(values, columns).times(alphas), top_ks)
    dense = torch.zeros_like(base)
    dense[:, slice(None) if columns is None else columns] = values
    for row, k in enumerate(top_ks):
        if k is not None and k < width:
            dropped = torch.ones(width, dtype=torch.bool)
            dropped[base[row].topk(k).indices] = False
            dense[row, dropped] = 0.0
    torch.testing.assert_close(steered, base + alphas[:, None] * dense, atol=1e-4, rtol=1e-4)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 5), st.integers(2, 80), st.floats(-50, 50))
def test_centring_makes_an_offset_meaningless(seed: int, rows: int, width: int, offset: float) -> None:
    base, shift = scores(seed, rows, width), scores(seed + 1, rows, width)
    columns = some(seed, width, 0.6)
    tensors = MapTensors(columns, columns.flip(0), is_identity=False)
    one = carry(shift, tensors, base, neutral=True)
    other = carry(shift + offset, tensors, base, neutral=True)
    torch.testing.assert_close(one.values, other.values, atol=1e-3, rtol=1e-3)
    if len(columns):
        weights = base[:, columns].softmax(-1)
        torch.testing.assert_close((weights * one.values).sum(-1), torch.zeros(rows), atol=1e-4, rtol=0)
    plain = carry(shift, tensors, base, neutral=False)
    assert torch.equal(plain.values, shift[:, columns.flip(0)])


def test_the_best_is_the_first_of_equals() -> None:
    assert best(torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])).tolist() == [1, 0]

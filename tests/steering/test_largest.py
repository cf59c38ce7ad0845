"""The largest few of each row are what `topk` finds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steering import largest as module
from steering.largest import largest


@pytest.fixture(autouse=True)
def always_worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WORTHWHILE", 0)
    monkeypatch.setattr(module, "_SPARSE", 1)


@settings(deadline=None)
@given(
    rows=st.integers(1, 4),
    size=st.integers(1, 1500),
    count=st.integers(1, 24),
    levels=st.sampled_from([3, 1_000_000]),
    seed=st.integers(0, 2**16),
)
def test_it_is_topk(rows: int, size: int, count: int, levels: int, seed: int) -> None:
    count = min(count, size)
    generator = torch.Generator().manual_seed(seed)
    # Of few levels many are equal; which of those are found is not said.
    scores = torch.randint(levels, (rows, size), generator=generator).float()
    scores[scores == 0] = -torch.inf
    values, where = largest(scores, count)
    assert torch.equal(values, scores.topk(count).values)
    assert torch.equal(scores.gather(1, where), values)
    assert all(len(set(row)) == count for row in where.tolist())


def test_a_row_that_is_broken_leaves_the_others_alone() -> None:
    scores = torch.randn(3, 1024, generator=torch.Generator().manual_seed(0))
    scores[1, 700] = torch.nan
    values, where = largest(scores, 5)
    assert torch.equal(where[[0, 2]], scores[[0, 2]].topk(5).indices)
    assert values[1].isnan().any()

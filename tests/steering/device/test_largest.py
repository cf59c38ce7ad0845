"""`largest` finds what `topk` finds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steering.device import largest as module
from steering.device.largest import largest


def check(scores: Tensor, count: int) -> None:
    values, where = largest(scores, count)
    torch.testing.assert_close(values, scores.topk(count).values, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(scores.gather(1, where), values, rtol=0, atol=0, equal_nan=True)
    assert all(len(set(row)) == count for row in where.tolist())


@settings(deadline=None)
@given(
    rows=st.integers(1, 4),
    blocks=st.integers(1, 12),
    tail=st.integers(0, 127),
    share=st.floats(0, 1),
    levels=st.sampled_from([3, 1_000_000]),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_it_is_topk(
    rows: int, blocks: int, tail: int, share: float, levels: int, seed: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, 128 * blocks + tail)
    # With few levels many scores are equal; as under a grammar, most may be impossible.
    scores = torch.randint(levels, shape, generator=generator).float()
    scores[torch.rand(shape, generator=generator) > share] = -torch.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LARGE", 0)
        patch.setattr(module, "_SPARSE", 1)
        check(scores, data.draw(st.integers(0, blocks)))


@pytest.mark.parametrize("size", [32_000, 151_936, 151_941])
def test_it_is_topk_of_real_vocabularies(size: int) -> None:
    scores = torch.randn(3, 2 * size, generator=torch.Generator().manual_seed(0))[:, ::2]
    for count in (1, 16, 512):
        check(scores, count)


def test_which_of_equals_are_found_depends_on_their_row_alone() -> None:
    scores = torch.randint(50, (9, 70_000), generator=torch.Generator().manual_seed(0)).float()
    _, together = largest(scores, 20)
    for row in range(9):
        assert torch.equal(largest(scores[row : row + 1], 20)[1][0], together[row])


def test_a_row_that_is_broken_leaves_the_others_alone() -> None:
    scores = torch.randn(4, 70_000, generator=torch.Generator().manual_seed(0))
    scores[1, 700] = torch.nan
    scores[2] = torch.nan
    values, where = largest(scores, 5)
    check(scores, 5)
    assert where[1, 0] == 700
    assert values[2].isnan().all()
    assert torch.equal(where[[0, 3]], scores[[0, 3]].topk(5).indices)

"""Products with packed weights against `torch.nn.functional.linear`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from steering.model import packed_linear
from steering.model.packed_linear import LazilyPacked, Product, pack_linears, product

WIDTH = 256


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 40),
    width=st.sampled_from([64, 257, 384]),
    height=st.sampled_from([64, 300, 512]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    bias=st.booleans(),
)
def test_a_product_is_the_linear_layer(
    rows: int, width: int, height: int, dtype: torch.dtype, bias: bool
) -> None:
    generator = torch.Generator().manual_seed(rows * width + height)
    weight = torch.randn(height, width, generator=generator).to(dtype)
    offset = torch.randn(height, generator=generator).to(dtype) if bias else None
    states = torch.randn(rows, width, generator=generator).to(dtype)
    with torch.inference_mode():
        found = product(weight, offset)(states)
    expected = nn.functional.linear(
        states.float(), weight.float(), None if offset is None else offset.float()
    )
    assert found.dtype == dtype
    scale = width**0.5 * {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 4e-2}[dtype]
    torch.testing.assert_close(found.float(), expected, atol=scale, rtol=scale)


def test_packing_leaves_small_and_foreign_layers_alone() -> None:
    class Special(nn.Linear):
        pass

    model = nn.ModuleDict(
        {"small": nn.Linear(8, 8), "special": Special(512, 512), "large": nn.Linear(512, 512)}
    )
    states = torch.randn(3, 512)
    expected = model["large"](states)
    pack_linears(model)
    assert type(model["small"]) is nn.Linear and type(model["special"]) is Special
    assert type(model["large"]) is not nn.Linear
    torch.testing.assert_close(model["large"](states), expected, atol=1e-5, rtol=1e-5)


def test_what_is_packed_when_used_is_packed_once_and_again_after_a_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed: list[torch.Tensor] = []

    def counted(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
        packed.append(weight)
        return product(weight, bias)

    monkeypatch.setattr(packed_linear, "product", counted)
    torch.manual_seed(0)
    weight, states = torch.randn(400, WIDTH), torch.randn(3, WIDTH)
    head = LazilyPacked(weight, None)
    assert not packed
    first, second = head(states), head(states)
    assert len(packed) == 1
    head.release()
    third = head(states)
    assert len(packed) == 2
    assert torch.equal(first, product(weight, None)(states))
    assert torch.equal(first, second)
    assert torch.equal(first, third)

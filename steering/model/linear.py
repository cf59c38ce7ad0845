"""Products with a frozen weight, the weight laid out once for the kernel that will read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Smaller weights stay in a core's own cache, and the kernel's set-up costs more than their layout saves.
_SMALLEST = 1 << 16

Product = Callable[[Tensor], Tensor]


def product(weight: Tensor, bias: Tensor | None) -> Product:
    """`x -> x @ weight.T + bias` for a weight `[out, in]` that will not change, bias `[out]`.

    On a CPU the weight is copied into oneDNN's blocked layout, which a few rows at a time read nearly twice as fast
    as the plain one: decoding is bound by reading weights.
    """
    if not _packs(weight):
        return partial(functional.linear, weight=weight, bias=bias)
    return _Packed(weight, bias)


def pack_linears(model: nn.Module) -> None:
    """Replace each linear layer that gains from it by one with a packed weight."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and _packs(child.weight):
                setattr(parent, name, _PackedLinear(child))


def _packs(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        # float16 is emulated by most CPUs, and oneDNN refuses to pack it there.
        and weight.dtype in (torch.float32, torch.bfloat16)
        and weight.numel() >= _SMALLEST
        and torch.backends.mkldnn.is_available()
    )


class PackedWhenUsed:
    """As `product`, of a weight that is held plain for another use too: packed at its first product.

    Until then it is in memory once. Two threads may use it at once, at worst packing it twice for a moment.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias
        self._product: Product | None = None

    def __call__(self, states: Tensor) -> Tensor:
        """`states @ weight.T + bias`."""
        packed = self._product
        if packed is None:
            packed = self._product = product(self._weight, self._bias)
        return packed(states)

    def rest(self) -> None:
        """Let go of the packed weight until it is used again."""
        self._product = None


class _Packed:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        kernels: Any = torch.ops.mkldnn
        with torch.inference_mode():
            self._weight: Tensor = kernels._reorder_linear_weight(weight.contiguous(), None)
        # A copy: the original may be a piece of a file that is mapped into memory whole.
        self._bias = None if bias is None else bias.detach().clone()
        self._run = kernels._linear_pointwise

    def __call__(self, states: Tensor) -> Tensor:
        result: Tensor = self._run(states, self._weight, self._bias, "none", [], "")
        return result


class _PackedLinear(nn.Module):
    """Takes the place of an `nn.Linear` in somebody else's model."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._product = _Packed(linear.weight, linear.bias)

    def forward(self, states: Tensor) -> Tensor:
        return self._product(states)

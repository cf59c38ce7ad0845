"""Linear products with a frozen weight that is packed once into the layout that the CPU's kernel reads fastest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# A smaller weight fits into a core's cache, and the kernel's set-up costs more than the packed layout saves.
_MIN_SIZE = 1 << 16

Product = Callable[[Tensor], Tensor]


def product(weight: Tensor, bias: Tensor | None) -> Product:
    """The function `x -> x @ weight.T + bias` for a weight `[out, in]` that will not change, bias `[out]`.

    On a CPU the weight is copied into oneDNN's blocked layout. A product with a few rows reads it nearly twice as fast
    as the plain layout, and decoding is bound by reading weights.
    """
    if not _packs(weight):
        return partial(functional.linear, weight=weight, bias=bias)
    return _Packed(weight, bias)


def pack_linears(model: nn.Module) -> None:
    """Replace each linear layer that gains from a packed weight by a layer that has one."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and _packs(child.weight):
                setattr(parent, name, _PackedLinear(child))


def _packs(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        # Most CPUs emulate float16, and oneDNN refuses to pack it there.
        and weight.dtype in (torch.float32, torch.bfloat16)
        and weight.numel() >= _MIN_SIZE
        and torch.backends.mkldnn.is_available()
    )


class LazilyPacked:
    """A `product` that packs its weight at the first call, for a weight that is in use in its plain layout as well.

    Until the first call the weight is in memory only once. Two threads may call it at the same time; at worst both
    pack the weight, and one copy is dropped.
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

    def release(self) -> None:
        """Free the packed weight; the next call packs it again."""
        self._product = None


class _Packed:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        kernels: Any = torch.ops.mkldnn
        with torch.inference_mode():
            self._weight: Tensor = kernels._reorder_linear_weight(weight.contiguous(), None)
        # A copy, because the original may keep a whole file mapped in memory.
        self._bias = None if bias is None else bias.detach().clone()
        self._run = kernels._linear_pointwise

    def __call__(self, states: Tensor) -> Tensor:
        result: Tensor = self._run(states, self._weight, self._bias, "none", [], "")
        return result


class _PackedLinear(nn.Module):
    """A packed replacement for an `nn.Linear` in a transformers model."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._product = _Packed(linear.weight, linear.bias)

    def forward(self, states: Tensor) -> Tensor:
        return self._product(states)

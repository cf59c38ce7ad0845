"""A recorder for any device: it notes the operations of a pass, and repeats them on the same tensors.

What a CUDA graph does, without a GPU: Python runs once, addresses and host values are what they were, only what stands
in memory counts. What a graph could not capture is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from steering.device.execution import Execution

# They read the device's numbers on the host, or make shapes of them.
READING = (
    "_local_scalar_dense",
    "item",
    "resolve_neg",  # as `tolist` does, and nothing else here
    "is_nonzero",
    "nonzero",
    "masked_select",
    "_unique2",
    "equal",
)
# It brings the host's numbers to the device.
WRITING = "lift_fresh"


class NotRecordableError(RuntimeError):
    """The pass does what no graph can capture."""


def reads_on_the_host(func: Any, args: tuple[Any, ...]) -> bool:
    """True for an operation for which a GPU's host waits."""
    name = _name(func)
    by_mask = name.startswith(("index.", "index_put", "_index_put")) and any(
        i is not None and i.dtype == torch.bool for i in args[1]
    )
    return by_mask or any(name == bad or name.startswith(bad + ".") for bad in READING)


def _name(func: Any) -> str:
    return str(func).removeprefix("aten.")


class HostReads(TorchDispatchMode):
    """Counts how often the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if reads_on_the_host(func, args):
            self.names.append(_name(func))
        return func(*args, **(kwargs or {}))


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if reads_on_the_host(func, args) or _name(func).startswith(WRITING):
            raise NotRecordableError(f"{_name(func)} cannot be recorded")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor)]


def _storages(tensors: Sequence[Tensor]) -> set[int]:
    return {t.untyped_storage()._cdata for t in tensors if t.layout == torch.strided}


class TapeRecorder:
    """Counts what it recorded, and what it repeated."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        tape = _Tape()
        with tape:
            result = run()
        self.recorded += 1

        def replay() -> Tensor:
            self.replayed += 1
            for func, args, kwargs, outputs in tape.calls:
                given = _storages(_tensors((args, kwargs)))
                again = func(*args, **kwargs)
                for old, new in zip(_tensors(outputs), _tensors(again), strict=True):
                    # A view, or an operation in place, has its result where it was.
                    if not _storages([old]) & given:
                        old.copy_(new)
            return result

        return replay


def like_a_gpu() -> Execution:
    """All that an engine does on a GPU and not on a CPU, on a CPU."""
    return Execution(TapeRecorder(), TapeRecorder(), runs_ahead=True)
